"""The loss along the straight lines between the stages of finished trials (``python -m clstudy.loss_path STUDY``).

After *Plateau in Monotonic Linear Interpolation* (arXiv 2210.01019): between the weights of t-1 and t, and of t = 0 and
the last stage, moving all parameters, weights only, or biases only. The loss is the trainer's own (LPIPS + MSE) on test
photos at their fixed starting latents; there is no inversion, which would hide what the weights do. This needs the
stored weights; numbers and figures are computed in ``clstudy.analysis`` without torch.
"""
