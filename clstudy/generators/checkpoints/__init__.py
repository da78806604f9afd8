"""Published generators as tensors under our names, read without running anything a file contains.

Formats: pickles of NVIDIA's stylegan2-ada-pytorch, stylegan3 (StyleGAN2 networks) and eg3d repositories, torch files of
such a network, whole or its synthesis network alone (MyStyle's personalised models), rosinality's state dicts, and our
own safetensors files. Sizes are inferred from the tensors; what changes a network's output without changing a shape
(architecture, activation, filter, learning rate multiplier, clamping) is read from the objects where the format keeps
it, and refused where our networks differ.
"""
