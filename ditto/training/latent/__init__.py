"""How codec, V's generator and RAP's denoiser are trained: clips, losses, the loop."""
