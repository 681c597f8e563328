"""Two talking heads that generate latent video, not motion: V (arXiv:2606.01620) and RAP (arXiv:2508.05115)."""
