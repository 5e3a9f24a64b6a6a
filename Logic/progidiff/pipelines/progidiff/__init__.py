"""ProGiDiff: the parts of the 2D latent diffusion model and the pipeline that joins them."""
