"""The people studied: photo folders, the packaged data sets, and the faces in them.

``catalogue.open_data_set`` is the entry point; ``dataset`` has the types; ``python -m clstudy.identities check PATH``
checks a folder. Nothing is imported here, so that reading a data set needs no torch.
"""
