"""Where and when an occasion takes place: light, backdrop and clothes, near the person's usual ones or far off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clstudy.identities.virtual.moment import Backdrop, Clothes, Light
from clstudy.identities.virtual.person import Colour
from clstudy.seeding import derive_rng

# Written out, so that a new backdrop or neckline does not change the photos of today's settings.
_KINDS = ("plain", "gradient", "clouds", "wall", "curtain", "lights", "window")
_NECKLINES = ("crew", "v-neck", "turtleneck", "shirt collar", "bare shoulders")

_GOLDEN, _TINY = 0.6180339887498949, 2.0**-53
"""The golden ratio's inverse, whose multiples modulo 1 keep apart; and what keeps a mirrored number below 1."""

_HAT, _OTHER_EYES = 0.1, 0.1
"""Chances that an occasion is one with a hat, or with glasses for who usually wears none (and the reverse)."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all frames of an occasion share.

    Attributes:
        light: before its changes from mode to mode.
        hat: whether a hat is worn.
        glasses: whether glasses are worn.
    """

    light: Light
    backdrop: Backdrop
    clothes: Clothes
    hat: bool
    glasses: bool


def usual_setting(seed: int, index: int, usually_glasses: bool) -> Setting:
    """The setting that a person's occasions have in common as far as they do not drift.

    Args:
        seed: of the data.
        index: of the person.
        usually_glasses: whether the person wears glasses then.
    """
    drawn = _drawn(derive_rng("usual setting", seed, index).random)
    return Setting(
        light=drawn.light, backdrop=drawn.backdrop, clothes=drawn.clothes, hat=False, glasses=usually_glasses
    )


def setting_of(usual: Setting, seed: int, index: int, timestamp: int, drift: float) -> Setting:
    """The setting of one occasion; for the same seed, a larger drift moves it further in the same direction.

    Args:
        usual: the person's.
        seed: of the data.
        index: of the person.
        timestamp: which occasion, from 0.
        drift: 0: the usual setting; 1: one that has nothing to do with it.
    """
    other = _drawn(_apart(seed, index, timestamp))
    rng = derive_rng("what changes", seed, index, timestamp)
    new_backdrop, new_neckline, hat, eyes = (rng.random() < drift * chance for chance in (1, 1, _HAT, _OTHER_EYES))
    place, cloth = (other if new else usual for new in (new_backdrop, new_neckline))
    return Setting(
        light=_mixed_light(usual.light, other.light, drift),
        backdrop=Backdrop(
            kind=place.backdrop.kind,
            seed=place.backdrop.seed,
            colour=_mixed_colour(usual.backdrop.colour, other.backdrop.colour, drift),
            second=_mixed_colour(usual.backdrop.second, other.backdrop.second, drift),
        ),
        clothes=Clothes(
            neckline=cloth.clothes.neckline,
            stripes=cloth.clothes.stripes,
            colour=_mixed_colour(usual.clothes.colour, other.clothes.colour, drift),
            second=_mixed_colour(usual.clothes.second, other.clothes.second, drift),
        ),
        hat=hat,
        glasses=usual.glasses != eyes,
    )


def _apart(seed: int, index: int, timestamp: int) -> Callable[[], float]:
    """Numbers in [0, 1), uniform over people, each in golden steps over timestamps (half of them downwards).

    Numbers drawn anew would now and then be almost equal at two timestamps, and that person's occasions hardly differ.
    """
    rng = derive_rng("settings of occasions", seed, index)

    def draw() -> float:
        turns = rng.random() + timestamp * _GOLDEN
        share = turns - int(turns)
        return share if rng.random() < 0.5 else 1 - share - _TINY

    return draw


def _drawn(draw: Callable[[], float]) -> Setting:
    def between(low: float, high: float) -> float:
        return low + (high - low) * draw()

    def one_of(names: tuple[str, ...]) -> str:
        return names[int(draw() * len(names))]

    def paint() -> Colour:
        """A colour of something painted or woven: a grey with some colour in it."""
        grey, much = between(0.02, 0.65), between(0.1, 0.8)
        red, green, blue = (grey * (1 - much + 2 * much * draw()) for _ in range(3))
        return min(red, 1.0), min(green, 1.0), min(blue, 1.0)

    light = Light(
        azimuth=between(-85, 85),
        elevation=between(0, 55),
        colour=_warm(between(-1, 1)),
        ambient=between(0.25, 0.65),
        ambient_colour=_warm(between(-0.8, 0.8)),
        strength=between(0.55, 1.4),
    )
    backdrop = Backdrop(kind=one_of(_KINDS), colour=paint(), second=paint(), seed=int(draw() * (1 << 31)))
    neckline, colours = one_of(_NECKLINES), (paint(), paint())
    striped, stripes = draw() < 0.2, between(1, 4)
    clothes = Clothes(neckline=neckline, colour=colours[0], second=colours[1], stripes=stripes if striped else 0.0)
    return Setting(light=light, backdrop=backdrop, clothes=clothes, hat=False, glasses=False)


def _warm(warmth: float) -> Colour:
    """A light's colour, from bluish at -1 to reddish at 1."""
    return 1 + 0.18 * warmth, 1.0, 1 - 0.3 * warmth


def _mixed(usual: float, other: float, share: float) -> float:
    return usual + share * (other - usual)


def _mixed_colour(usual: Colour, other: Colour, share: float) -> Colour:
    return (
        _mixed(usual[0], other[0], share),
        _mixed(usual[1], other[1], share),
        _mixed(usual[2], other[2], share),
    )


def _mixed_light(usual: Light, other: Light, share: float) -> Light:
    return Light(
        azimuth=_mixed(usual.azimuth, other.azimuth, share),
        elevation=_mixed(usual.elevation, other.elevation, share),
        colour=_mixed_colour(usual.colour, other.colour, share),
        ambient=_mixed(usual.ambient, other.ambient, share),
        ambient_colour=_mixed_colour(usual.ambient_colour, other.ambient_colour, share),
        strength=_mixed(usual.strength, other.strength, share),
    )
