// A list of any length: only the rows in sight are elements.

const ROW_HEIGHT = 28, MARGIN = 4;

class VirtualList {
  /**
   * @param grid the element with role grid, which has the keyboard's focus
   * @param scroller the element in it that scrolls
   * @param makeRow (item, place) => element, of an item in the place counted from 0
   * @param onChoose called with the item that was chosen
   */
  constructor(grid, scroller, makeRow, onChoose) {
    Object.assign(this, { grid, scroller, makeRow, onChoose, items: [], chosen: -1, rows: new Map() });
    this.space = element("div", { role: "presentation" });
    scroller.append(this.space);
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    scroller.addEventListener("click", (event) => {
      const row = event.target.closest("[role=row]");
      if (row) this.choose(Number(row.dataset.place));
    });
    grid.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(scroller);
  }

  /** Show other items; the chosen one stays so where it is among them. */
  show(items) {
    const item = this.items[this.chosen];
    this.items = items;
    this.chosen = items.indexOf(item);
    this.space.style.height = `${items.length * ROW_HEIGHT}px`;
    this.grid.setAttribute("aria-rowcount", items.length + 1);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    if (this.chosen < 0) this.scroller.scrollTop = 0;
    else this.reveal();
    this.draw();
  }

  choose(place) {
    if (!this.items.length) return;
    this.chosen = Math.max(0, Math.min(place, this.items.length - 1));
    this.reveal();
    this.draw();
    this.onChoose(this.items[this.chosen]);
  }

  /** Scroll as little as shows the chosen row. */
  reveal() {
    const top = this.chosen * ROW_HEIGHT, room = this.scroller.clientHeight - ROW_HEIGHT;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
  }

  draw() {
    const { scrollTop, clientHeight } = this.scroller; // asked for before anything is changed: that makes them dear
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - MARGIN);
    const seen = Math.ceil(clientHeight / ROW_HEIGHT) + 2 * MARGIN;
    const last = Math.min(this.items.length, first + seen);
    for (const [place, row] of this.rows) {
      const needed = (place >= first && place < last) || place === this.chosen; // the focus needs the chosen one
      if (needed) continue;
      row.remove();
      this.rows.delete(place);
    }
    for (let place = first; place < last; place++) this.row(place);
    if (this.chosen >= 0) this.row(this.chosen);
    const chosen = this.rows.get(this.chosen);
    if (this.marked !== chosen) {
      this.marked?.setAttribute("aria-selected", "false");
      chosen?.setAttribute("aria-selected", "true");
      this.marked = chosen;
    }
    if (this.chosen >= 0) this.grid.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  row(place) {
    if (this.rows.has(place)) return;
    const row = this.makeRow(this.items[place], place);
    row.id = `row-${place}`;
    row.dataset.place = place;
    row.setAttribute("role", "row");
    row.setAttribute("aria-selected", "false");
    row.setAttribute("aria-rowindex", place + 2);
    row.style.height = `${ROW_HEIGHT}px`;
    row.style.top = `${place * ROW_HEIGHT}px`;
    this.rows.set(place, row);
    this.space.append(row);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.choose(this.chosen < 0 && event.key !== "End" ? 0 : this.chosen + steps[event.key]);
  }
}
