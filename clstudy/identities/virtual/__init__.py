"""Virtual people: faces of people who do not exist, of any number, with the truth behind every photo.

    person = draw_virtual_person(seed=0, index=7)
    moment = Moment(age=40.0, expression=Expression(smile=0.8), pose=Pose(yaw=-20), light=Light(azimuth=50))
    photo = Sitter(person).photograph(moment, 64)
    photo.image, photo.depth, photo.landmarks, photo.camera

The story: a ``person`` is drawn; its ``head`` is a sum of packaged displacements; ``worn`` adds hair, hat and glasses;
``scene`` makes one mesh of all of it, seen by an aligned ``camera``; ``rasteriser`` finds what each pixel shows,
``skin`` and ``shading`` what colour it has, and ``photo`` develops it. All of it is arithmetic whose last bit is the
same everywhere (``exact``). ``build`` makes the packaged file and is not needed for photos. Figures and faults:
``clstudy/assets/VIRTUAL_PEOPLE.md``.
"""
