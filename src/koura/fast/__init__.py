"""The fast path: the same answers as the reference, in bursts, without the GIL; or "not mine", before anything is touched. Optional."""
