"""The table of known units: their names, their sizes in base units, and the prefixes they take."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

# symbol | names | size and base units | prefixes. A unit without base units is its own: it converts to no other.
_TABLE = r"""
m    | meter meters metre metres                     | 1 m                 | f n µ m c d k
in   | inch inches                                   | 127/5000 m          |
ft   | foot feet                                     | 381/1250 m          |
yd   | yard yards yds                                | 1143/1250 m         |
mi   | mile miles                                    | 201168/125 m        |
nmi  | nauticalmile                                  | 1852 m              |
ly   | lightyear lightyears                          |                     |
Å    | angstrom angstroms                            | 1/10000000000 m     |
g    | gram grams gm gms gramme grammes              | 1 g                 | n µ m k
t    | tonne tonnes                                  | 1000000 g           |
lb   | lbs pound pounds                              | 45359237/100000 g   |
oz   | ounce ounces                                  | 45359237/1600000 g  |
ton  | tons                                          |                     |
s    | sec secs second seconds                       | 1 s                 | f p n µ m
min  | mins minute minutes                           | 60 s                |
h    | hr hrs hour hours                             | 3600 s              |
day  | days                                          | 86400 s             |
week | weeks                                         | 604800 s            |
month | months                                       | 1 month             |
year | years yr yrs                                  | 12 month            |
decade | decades                                     | 120 month           |
century | centuries                                  | 1200 month          |
a.m. | am a.m                                            |                     |
p.m. | pm p.m                                            |                     |
L    | l liter liters litre litres ltr               | 1/1000 m^3          | µ m c d k
cc   |                                               | 1/1000000 m^3       |
gal  | gallon gallons                                | 473176473/125000000000 m^3 |
qt   | quart quarts                                  | 473176473/500000000000 m^3 |
pint | pints                                         | 473176473/1000000000000 m^3 |
cup  | cups                                          | 473176473/2000000000000 m^3 |
tbsp | tablespoon tablespoons                        |                     |
tsp  | teaspoon teaspoons                            |                     |
acre | acres                                         |                     |
ha   | hectare hectares                              | 10000 m^2           |
mph  |                                               | 1397/3125 m s^-1    |
kph  | kmh kmph                                      | 5/18 m s^-1         |
fps  |                                               | 381/1250 m s^-1     |
knot |                                               | 463/900 m s^-1      |
Hz   | hertz                                         | 1 s^-1              | k M G T
rpm  |                                               |                     |
N    | newton newtons                                | 1000 g m s^-2       | µ m k M
J    | joule joules                                  | 1000 g m^2 s^-2     | µ m k M G
W    | watt watts                                    | 1000 g m^2 s^-3     | n µ m k M G
Wh   |                                               | 3600000 g m^2 s^-2  | k M
Pa   | pascal pascals                                | 1000 g m^-1 s^-2    | h k M G
bar  | bars                                          | 100000000 g m^-1 s^-2 | m
atm  | atmosphere atmospheres                        | 101325000 g m^-1 s^-2 |
psi  |                                               |                     |
eV   | electronvolt electronvolts                    |                     | m k M G T
cal  | calorie calories                              |                     |
kcal | kilocalorie kilocalories                      |                     |
hp   | horsepower                                    |                     |
A    | amp amps ampere amperes                       | 1 A                 | p n µ m k
V    | volt volts                                    | 1000 g m^2 s^-3 A^-1 | n µ m k M
Ω    | ohm ohms                                      | 1000 g m^2 s^-3 A^-2 | m k M
C    | coulomb coulombs                              | 1 A s               | p n µ m
F    | farad farads                                  | 1/1000 A^2 s^4 g^-1 m^-2 | p n µ m
H    | henry henries henrys                          | 1000 g m^2 s^-2 A^-2 | n µ m
T    | tesla teslas                                  | 1000 g s^-2 A^-1    | n µ m
Wb   | weber webers                                  | 1000 g m^2 s^-2 A^-1 | m
K    | kelvin kelvins                                |                     | m
°C   | celsius centigrade                            |                     |
°F   | fahrenheit                                    |                     |
mol  | mole moles                                    | 1 mol               | n µ m k
cd   | candela                                       |                     |
lm   | lumen lumens                                  |                     |
lx   | lux                                           |                     |
Bq   | becquerel becquerels                          |                     | k M G
Sv   | sievert sieverts                              |                     | µ m
°    | degree degrees deg degs                       |                     |
arcmin | arcminute arcminutes                        |                     |
arcsec | arcsecond arcseconds                        |                     |
rad  | radian radians                                |                     |
sr   | steradian steradians                          |                     |
dB   | decibel decibels                              |                     |
bit  | bits                                          | 1 bit               |
byte | bytes                                         | 8 bit               |
KB   | kB kilobyte kilobytes                         |                     |
MB   | megabyte megabytes                            |                     |
GB   | gigabyte gigabytes                            |                     |
TB   | terabyte terabytes                            |                     |
kb   | kilobit kilobits                              |                     |
Mb   | megabit megabits                              |                     |
Gb   | gigabit gigabits                              |                     |
kbps |                                               |                     |
Mbps |                                               |                     |
Gbps |                                               |                     |
%    | \% percent percentage percentages pct         |                     |
$    | \$ dollar dollars usd buck bucks              | 1 $                 |
¢    | cent cents                                    | 1/100 $             |
€    | euro euros eur                                |                     |
£    | gbp sterling                                  |                     |
¥    | yen yuan rmb cny 元                              |                     |
₹    | rupee rupees                                  |                     |
peso | pesos                                         |                     |
unit | units                                         |                     |
"""
_PREFIXES = {"f": -15, "p": -12, "n": -9, "µ": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12}
_PREFIX_WORDS = {
    "f": "femto", "p": "pico", "n": "nano", "µ": "micro", "m": "milli", "c": "centi", "d": "deci", "h": "hecto",
    "k": "kilo", "M": "mega", "G": "giga", "T": "tera",
}  # fmt: skip

Dimensions = tuple[Fraction, tuple[tuple[str, int], ...]]


def _read(size: str, symbol: str) -> Dimensions:
    factor, *bases = size.split() or ["1", symbol]
    powers = [base.partition("^") for base in bases]
    return Fraction(factor), tuple((base, int(power or 1)) for base, _, power in powers)


def _build() -> tuple[dict[str, Dimensions], dict[str, str]]:
    symbols: dict[str, Dimensions] = {}
    words: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        symbol, names, size, prefixes = (column.strip() for column in line.split("|"))
        factor, bases = symbols[symbol] = _read(size, symbol)
        words |= dict.fromkeys(names.casefold().split(), symbol)
        for prefix in prefixes.split():
            symbols[prefix + symbol] = (factor * Fraction(10) ** _PREFIXES[prefix], bases)
            long = [name for name in names.split() if len(name) > 3]
            words |= {_PREFIX_WORDS[prefix] + name: prefix + symbol for name in long}
    words |= {"cms": "cm", "kms": "km", "kgs": "kg", "kilo": "kg", "kilos": "kg", "micron": "µm", "microns": "µm"}
    return symbols, words


def _caseless(symbols: Iterable[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for symbol in symbols:
        found[symbol.casefold()] = found.get(symbol.casefold(), frozenset()) | {symbol}
    return found


# Size and base units of each symbol; the symbol of each name, in lower case; the symbols that lower case leaves open.
SYMBOLS, WORDS = _build()
CASELESS: Mapping[str, frozenset[str]] = _caseless(SYMBOLS)
