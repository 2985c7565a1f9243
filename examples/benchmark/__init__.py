"""Speed and memory of BART in several systems, on the same weights. Loads no torch: CTranslate2's worker has none."""
