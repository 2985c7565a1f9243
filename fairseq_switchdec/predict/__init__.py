"""``python -m fairseq_switchdec predict``: predictions for a file of any size, for every task that can say how."""
