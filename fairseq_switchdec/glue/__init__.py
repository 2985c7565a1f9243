"""GLUE: its tasks, their files, their measures. No fairseq here."""
