"""Learning: pretrain on both sensors, fine-tune on labels, and know whether it helped."""
