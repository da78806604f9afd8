"""Makes the packaged file of the virtual people from the MakeHuman head and the packaged DCGAN (``story``)."""
