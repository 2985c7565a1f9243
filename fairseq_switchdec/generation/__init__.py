"""What generation needs beyond fairseq's own sequence generator."""
