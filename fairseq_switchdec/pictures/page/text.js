"use strict";
// Texts of any kind as text: nothing in them is read as HTML, and what has no shape of its own gets one.

const [KEPT, DROPPED, PARTLY, UNREAD] = [0, 1, 2, 3];
// Characters shown of a text at first, and of a text in the list.
const SHOWN = 20000, EXCERPT = 240;
// Control characters but tab and newline, marks that turn lines around, and halves of characters.
const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu;

/** An element with properties, attributes ("role", "aria-...", "data-...", "class") and children. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The same for SVG. */
function shape(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Append a text to an element; each unseen character by its number, in a frame. */
function appendText(target, text) {
  let done = 0;
  for (const found of text.matchAll(UNSEEN)) {
    target.append(text.slice(done, found.index));
    const code = found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    target.append(element("span", { class: "code", title: "a character that is not seen" }, `U+${code}`));
    done = found.index + found[0].length;
  }
  target.append(text.slice(done));
  return target;
}

/** The nodes of one piece of a source, by what became of it; a space before a dropped word is not struck through. */
function nodesOf([state, text]) {
  if (state === KEPT) return [appendText(element("span"), text)];
  if (state === UNREAD) return [appendText(element("span", { class: "unread", title: "cut off: not read" }), text)];
  const [space] = text.match(/^\s*(?=\S)/) ?? [""];
  const [kind, title] = state === DROPPED ? ["", "dropped"] : ["partly", "some of this character's tokens were dropped"];
  return [space, appendText(element("del", { class: kind, title }), text.slice(space.length))];
}

/** A paragraph of pieces; of a long text the beginning, and a button for more. */
function paragraph(pieces) {
  const made = element("p", { class: "text" });
  made.append(...beginning(pieces, SHOWN));
  return made;
}

/** The nodes of so many characters of some pieces, and a button that puts as many more in its place. */
function beginning(pieces, room) {
  const nodes = [];
  let left = room, place = 0;
  for (; place < pieces.length && pieces[place][1].length <= left; place++) {
    nodes.push(...nodesOf(pieces[place]));
    left -= pieces[place][1].length;
  }
  if (place === pieces.length) return nodes;
  const [state, text] = pieces[place];
  if (left) nodes.push(...nodesOf([state, text.slice(0, left)]));
  const rest = [[state, text.slice(left)], ...pieces.slice(place + 1)];
  const count = rest.reduce((sum, [, more]) => sum + more.length, 0).toLocaleString("en");
  const button = element("button", { type: "button" }, `Show more: ${count} characters are left`);
  button.addEventListener("click", () => button.replaceWith(...beginning(rest, room)));
  return [...nodes, button];
}

/** The beginning of a text, on one line. */
function excerpt(text) {
  const made = element("span");
  return appendText(made, text.slice(0, EXCERPT).replace(/\s+/g, " ").trim());
}

/** A source's text. */
const joined = (pieces) => pieces.map(([, text]) => text).join("");
