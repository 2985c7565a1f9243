"""What to do with fairseq_switchdec, each a package that runs from the repository's root: ``python -m examples.NAME``.

    quickstart       train a small switchable BART on docstrings and see what it saves
    pretrained       SmolLM2, a pretrained language model, learns to summarize and what of itself to skip
    learning_check   a task whose best decisions are known: does the policy find them?
    benchmark        speed and memory, side by side with other systems on the same weights
    summarization    CNN/DM and XSum with the paper's settings, from raw text to ROUGE
    glue, squad      the same for classification and question answering
    serve            texts over HTTP, by replicas of a model under Ray Serve
    common           what several of them need

Importing it makes fairseq importable on today's Python; neither fairseq nor torch is loaded.
"""

from fairseq_switchdec.compat import install

install()
