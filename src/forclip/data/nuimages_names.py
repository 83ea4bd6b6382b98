"""Names for nuImages' dotted categories that can be put in a sentence, and the split into base and novel classes."""

# The name, then other names. Where a category is a collection, some of what the annotators' instructions list as part
# of it (nuscenes-devkit, docs/instructions_nuscenes.md). The names are ours; the taxonomy is nuImages' 23 object
# categories and its 2 surfaces, and what nuScenes adds to them for lidar.
READABLE: dict[str, tuple[str, ...]] = {
    "animal": ("animal", "dog", "cat", "bird"),
    "human.pedestrian.adult": ("adult pedestrian", "adult", "pedestrian"),
    "human.pedestrian.child": ("child", "child pedestrian", "kid"),
    "human.pedestrian.construction_worker": ("construction worker", "road worker"),
    "human.pedestrian.personal_mobility": ("personal mobility vehicle", "kick scooter", "skateboard", "segway"),
    "human.pedestrian.police_officer": ("police officer", "policeman", "policewoman"),
    "human.pedestrian.stroller": ("stroller", "baby carriage", "pram"),
    "human.pedestrian.wheelchair": ("wheelchair", "person in a wheelchair"),
    "movable_object.barrier": ("road barrier", "traffic barrier", "concrete barrier"),
    "movable_object.debris": ("road debris", "debris", "trash bag on the road"),
    "movable_object.pushable_pullable": ("push cart", "shopping cart", "wheelbarrow", "wheeled garbage bin"),
    "movable_object.trafficcone": ("traffic cone", "safety cone"),
    "static_object.bicycle_rack": ("bicycle rack", "bike rack"),
    "vehicle.bicycle": ("bicycle", "bike"),
    "vehicle.bus.bendy": ("bendy bus", "articulated bus"),
    "vehicle.bus.rigid": ("bus", "rigid bus"),
    "vehicle.car": ("car", "sedan", "van", "SUV"),
    "vehicle.construction": ("construction vehicle", "excavator", "crane truck"),
    "vehicle.emergency.ambulance": ("ambulance", "ambulance vehicle"),
    "vehicle.emergency.police": ("police vehicle", "police car"),
    "vehicle.motorcycle": ("motorcycle", "motorbike", "moped"),
    "vehicle.trailer": ("trailer", "truck trailer"),
    "vehicle.truck": ("truck", "lorry", "pickup truck"),
    "flat.driveable_surface": ("driveable surface", "road"),
    "flat.other": ("other flat surface",),
    "flat.sidewalk": ("sidewalk", "footpath"),
    "flat.terrain": ("terrain", "grass"),
    "noise": ("noise",),
    "static.manmade": ("man-made structure", "building", "wall"),
    "static.other": ("other static object",),
    "static.vegetation": ("vegetation", "tree", "bush"),
    "vehicle.ego": ("ego vehicle",),
}

# Which classes count as rare is not our choice: the nuScenes detection benchmark says of the same 23 classes that "some
# of these only have a handful of samples" and removes nine as rare (nuscenes-devkit,
# python-sdk/nuscenes/eval/detection/README.md, the rows "void / ignore"). That they are the novel ones here is ours:
# no split of nuImages into base and novel classes is known to us, the FOR paper's among them. We have not seen
# nuImages' own counts, and the benchmark judged by nuScenes'; with the data at hand, a rule on counts can replace this.
_REMOVED_AS_RARE = (
    "animal",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "static_object.bicycle_rack",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
)
NUIMAGES_NOVEL: tuple[str, ...] = tuple(READABLE[dotted][0] for dotted in _REMOVED_AS_RARE)


def readable(dotted: str) -> tuple[str, tuple[str, ...]]:
    """A category's name and its other names.

    One we don't know is called by its last part, its parents as a hint: `vehicle.emergency.fire_truck` becomes
    `fire truck`, also `fire truck (emergency vehicle)`.
    """
    if dotted in READABLE:
        name, *others = READABLE[dotted]
        return name, tuple(others)
    *parents, name = dotted.replace("_", " ").split(".")
    return name, (f"{name} ({' '.join(reversed(parents))})",) if parents else ()


def is_background(dotted: str) -> bool:
    """Whether a category names a surface or the like, of which there are masks but no boxes."""
    return dotted in ("noise", "vehicle.ego") or dotted.startswith(("flat.", "static."))
