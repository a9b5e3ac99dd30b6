"""The words that may stand behind a number without changing its value: what is counted, and how it is described.

Drawn from what the questions of GSM8K and MATH count ("how many apples", "the number of ways"). Left out are words
that are numbers, parts or operations: dozens, quarters, halves, fifths, doubles, powers.
"""

# Plurals; a singular is known by its plural.
_COUNTED = frozenset(
    """acorns addresses adults afternoons agents airplanes albums aliens alligators alpacas amulets angles animals
    answers antacids antelopes antlers ants apartments appetizers apples applications apps aprons aquariums arcs
    armchairs arms arrangements arrays arrests artichokes articles artifacts artworks assignments assortments
    asymptotes athletes attendees aunts avocados awards axes babies backpacks badges bagels bags baguettes bales
    balloons balls bananas bandages bands barbells barrels barrettes bars baseballs basketballs baskets basses
    batches bathrooms baths bats battalions batteries beads beakers beans bears beavers bedbugs bedrooms beds
    beehives bees beetles beignets belts benches berets berries bicycles bikes billboards bills binders
    biographies birches birdhouses birds biscuits bitcoins bites bits blackbirds blankets blisters blocks
    blossoms blouses blueberries bluegills boards boas boats bollards bolts bones bonnets bookcases bookmarks
    books bottles boulders bouquets bowls boxes boys bracelets branches breads breaths bricks bridesmaids
    brochures broomsticks brothers brownies browns bubbles buckets buffaloes bugs builders buildings bulbs bulls
    bumps bunches bundles bunnies buns burgers burritos burrs buses bushels bushes businesses butterflies
    buttons buyers cabinets cages cakes calculators calls calories cameras campers candidates candies candles
    cannolis cans cantaloupes canvases caps capsules caravans cardinals cards carnations carpenters carpets
    carriages carrots cars cartons carts cases castles caterpillars cats cavities ceilings cells centers
    centipedes chairs chandeliers channels chapters characters chargers charges charms charts cheerleaders
    cheesecakes chefs cherries chess chests chickens chicks chihuahuas children chimichangas chimps chipmunks
    chips chives chocolates choices chords chores chrysanthemums circles citations cities citizens claims clamps
    clarinets classes classmates classrooms clerks clients clips cloaks clocks clothes clotheslines clouds
    clovers cloves clownfish clubs clusters coaches coals coats cobras cobs coconuts codes coefficients coffees
    coins collections collectors colleges colonies colorings colors columns combinations comics committees
    commons complaints computers cones configurations consonants constants contacts containers contestants
    contracts convertibles cookbooks cookies copies corners corns costs cougars counselors countries couplings
    coupons courses cousins cows crabs crackers crafts cranberries cranes craters crates crayons creams credits
    crickets criminals croissants crops crosswalks croutons crows cubes cubs cucumbers cupcakes curlers curves
    customers cuts cycles cylinders daisies dancers dandelions danishes darts daughters decimals decks
    decorations deer deers delegates deliveries demerits desks desserts devices diagonals dials diamonds diapers
    diaries dice digits dimes dinners discs dishes divisors doctors documentaries dodgeballs dogs dolls dolphins
    dominoes donations donuts doors doses dots doughnuts doughs downloads dragons drawers drawings draws dreams
    dresses drinks drips drivers driveways dromedaries drops drummers drums dryers ducklings ducks dumplings
    dwarves earrings ears eaters edges eels eggplants eggs elections elements elephants elves emails employees
    emus endpoints enemies engines entrances entrees entries envelopes episodes equations equilibria erasers
    errors essays events expressions eyes faces facilities factors faculty fairies families fans farmhands farms
    farthings feathers females fences ferns fields fights figures figurines files filets fillets films finches
    fingers firecrackers firefighters fireflies fires fireworks fish fishes flags flagstones flamingoes
    flashcards flats flavors fleas flies flights flips flocks floors flowers flutes flyers folders foldings
    followers footballs footprints forks forms foxes fractions frames freshmen friends friendships fries frogs
    fronds fruits functions games gardens garments geckos geese gems gemstones generations geraniums gerbils
    gharials gifts gingerbreads giraffes girls glasses gnomes goals goats goldfish graders graduates grains
    grandchildren granddaughters grandparents grapes graphics graphs grasshoppers groups guests guitars gumballs
    guns guppies gusts gyms haircuts hairs hairstyles halls hamburgers hamsters handbags hands handshakes
    hangers hares hatchlings hats heads hearts helmets helpers hens hexagons highlighters hikes hippos hits hogs
    holes homes honeydews hoodies hops horses hospitals hotdogs households houses humans hurricanes hushpuppies
    identities iguanas images implants individuals inequalities infections ingredients inhabitants inpatients
    inputs insects instructions instructors instruments integers intersections inversions invitations ions
    islands issues items iterations jackets jacks jaguars jars jeans jellybeans jellyfish jerseys jewels jobs
    joggers jokes jugs juices jumpers jumps juniors kangaroos kernels kettles keyboards keys kids kilos
    kindergartners kinds kings kitchens kittens kiwis knights knives knockouts knots koalas ladders ladies
    ladybugs lambs lamps laps laptops lasagnas lattes lattices lawns layers layups legos legs lemonades lemons
    lengths leopards lessons letters levels licks lids lighters lights lilacs lilies limbs limes lines links
    lions lipsticks listens lists lives lizards llamas loads loaves loggers lollipops loops lotteries lugs
    lunches lychees macarons macaroons machines magazines maggots magnets magpies males managers mangoes mangos
    maps marbles marigolds markers marks marshmallows mascots masks matchbooks matchboxes matches matchsticks
    matrices mats maxima meals meatballs medals meetings melons members memos men messages mice microphones
    milkshakes millipedes minerals minibusses minima minis minivans minks minnows mirrors mistakes models
    monitors monkeys monomials monsters mores mosquitoes motorcycles mountains moves movies muffins mugs
    multiples murals mushrooms musicians nails napkins naps necklaces nectarines neighbors nephews nerds
    newborns newspapers nickels nieces nights nodes noodles noses notebooks notes novels numbers nurses nuts
    objects octagons officers olives omelets onions operations options oranges orchards orchids orcs orderings
    orders organizations orientations orphanages outcomes outfits outputs ovens oysters packages packets packs
    pads pages pails painkillers paintbrushes painters paintings pairs palindromes pallets palms pamphlets
    pancakes pandas panels pans pansies pants papayas paperclips papers paragraphs parakeets parallelograms
    parameters parents parrots parsnips participants particles parties partitions parts passengers passes
    passwords pastries patches paths patients patrons patterns pawpaws paws paychecks payments peaches peanuts
    pearls pears pebbles pencils penguins pennies pens pentagons people peppers performances periods
    permutations personalities persons pesetas petals pets petunias pfennigs phones photographs photos pianists
    pickles pictures pieces pies pigeons piglets pigs piles pillows pills pineapples pinecones pines pins
    pirates pistachios pitchers pitches pixels pizzas places planes planets planks planters plants plates
    players playlists plays plugs plums pockets pods pointers points poles polishes polygons polyhedra
    polynomials pomegranates pomelos poodles pools popcorns pops popsicles porcupines portions portraits
    possibilities postcards posters posts potatoes pots pouches pregnancies presents pretzels primes printers
    prisms prizes problems products programs proofs pufferfish puffs pugs pumpkins pumps punches pupils puppies
    pups purses pushups puzzles pyramids quadrilaterals quadruples queens questions quests quiches quilts
    quintets quizzes rabbits raccoons racers races racquets radishes raisins ranks raspberries rats rattlesnakes
    reams rearrangements recipes records recoveries rectangles redwoods reels refrigerators regions relations
    reports representations representatives requests reservations residents restaurants revolutions rheas
    rhinestones rhinos rhombi ribbons riddles riders rides ridges rings roads robes robins robots rocks rodents
    rods rollercoasters rolls roofs rooks roommates rooms roosters roots ropes roses rotations rounds routes
    rows ruffles rugs rungs sacks sailboats sailors salads sales salmon salmons salons salutations samples
    sandcastles sandwiches saplings sapphires sauces sausages savings scallops scarves schoolers schools
    scientists scissors scoops scorpions scouts screens screws seagulls seashells seasons seats sections sectors
    seedlings seeds segments selections selfies semesters semicircles seniors sentences sequences sequins
    servings sessions sets settings shakes shapes shares sharks sheep sheets shells shelves shingles shirts
    shoes shoplifters shoppers shorts shots showers siblings sides sightings signatures signs silos singers
    singles sisters sites situps skeins skeletons skips skirts slacks slats sleeves slices slippers slips slopes
    slots smartphones smoothies smores snacks snails snakes snapdragons sneakers snowballs snowflakes soaps
    socks sodas sofas soldiers solutions songs sonnets sons soups sours souvenirs spaces spades sparklers spears
    species spectators spellbooks spheres spiders spiderwebs spins spokes spools spoonfuls spoons spots sprigs
    springs sprinters sprints squads squares squats squirrels stables stacks staircases stairs stakes stalks
    stamps stanzas staplers stars states statues status steaks stems stencils steps stickers sticks stingrays
    stitches stones stools stoplights stops stores stories strands strawberries straws streetlights streets
    strikers strings stripes strips strokes students stuffers stuffies styles subcommittees subjects subs
    subscribers subsections subsets substitutions suckers suggestions suitcases suits sums sundaes sunflowers
    supplies surfaces surfers surveys swallows swans sweaters sweatshirts sweets switches swordfish symmetries
    systems tables tabs tacks tadpoles tails tangents tangerines tanks taps tarantulas tasks tattoos taxis
    teachers teacups teams tears teas teaspoonfuls techs teddies teens tees teeth televisions tents terms
    terriers tests tetrahedra textbooks texts thermoses things thorns throws thumbtacks tickets ties tigers
    tiles tilings tins tires tissues toads toddlers toenails toes tokens tomatoes toonies toothbrushes
    toothpicks toppings tops tosses touchdowns tourists tours towels towers towns toys tractors trainers trains
    trays treadmills treasures treats trees trials triangles tricycles triples triplets trips trolls trombones
    trophies trouts trucks truffles trumpets tubas tubes tubs tulips tumblers tunas tuples turkeys turns turtles
    twigs types ukuleles umbrellas uncles unicorns unicycles uniforms utensils vacations vaccines values
    vampires vans variables vases vectors vegetables vehicles vents vertices vessels vets vibrations videos
    viewers views vines violins visitors visits vlogs volumes volunteers voters votes vowels waiters walks walls
    walnuts wands warthogs washers washings watches watermelons ways weasels websites wedges weeds weighings
    werewolves whales wheels whiskers whistlers whiteboards wicks widgets wights wigs wildflowers windows wings
    wipes wolves wombats women woodblocks words workdays workers works worksheets worms yams yogurts yolks
    zebras zeroes zeros zits zombies zones""".split()  # noqa: SIM905
)
# Singulars that would read as an operation on the number before them.
_NOT_ALONE = frozenset(
    {"cube", "decimal", "factor", "fraction", "inversion", "multiple", "prime", "root", "short", "square"}
)
# These say nothing alone: 12 red apples, 5 feet tall, 6 gallons of water.
ADJECTIVES = frozenset(
    """old tall wide high deep thick heavy away apart positive nonnegative rational irrational complete consecutive
    water milk flour sugar juice paint fabric ribbon wood land rice sand gas fuel oil soil paper cloth rope wire yarn
    candy chocolate coffee tea lemonade ice snow rain work sleep money food fruit
    additional adult altogether annual average black blue congruent correct daily different digit distinct
    distinguishable equal extra fewer free full gold green grey identical individual integer large left lattice
    letter long male female more musical natural new nonzero odd even orange ordered other overall pink possible
    prime pure purple real red remaining right same separate single small solid special such total unique
    unordered valid various weekly white whole wooden yellow""".split()  # noqa: SIM905
)
FILLERS = frozenset({"a", "about", "all", "an", "approximately", "each", "in", "of", "on", "the"})


def is_counted(word: str) -> bool:
    """Whether a lower-case word names things that are counted: apples, apple, ways."""
    return word in _COUNTED or (word not in _NOT_ALONE and any(plural in _COUNTED for plural in _plurals(word)))


def singular(word: str) -> str:
    """One spelling for the singular and the plural: a key, not always a word."""
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word.removesuffix("s")


def _plurals(word: str) -> tuple[str, ...]:
    if word.endswith("y"):
        return word + "s", word[:-1] + "ies"
    return (word + "es",) if word.endswith(("s", "x", "z", "o", "ch", "sh")) else (word + "s",)
