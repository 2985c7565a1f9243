"""``report html``: a run as one HTML file. `view.input_view` is what it shows of one input, for other programs too."""
