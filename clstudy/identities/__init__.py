"""Who is studied: photo folders, the packaged data sets, and the faces in them.

``catalogue.open_data_set`` is the way in; ``dataset`` has the types; ``python -m clstudy.identities check PATH`` looks
a folder over. Nothing is imported here, so that reading a data set needs no torch.
"""
