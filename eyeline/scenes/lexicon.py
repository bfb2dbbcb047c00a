"""The words that scenes draw and traces speak. Few and shared over the families, so that two cores learn to read them."""

FOODS = ("tea", "milk", "rice", "bread", "soup", "cake", "fish", "salt", "corn", "plum")
NAMES = ("Ann", "Ben", "Eva", "Leo", "Max", "Mia", "Tom", "Zoe")
CITIES = ("Rome", "Paris", "Oslo", "Lima", "Cairo", "Delhi")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ANIMALS = ("grass", "rabbit", "fox", "frog", "snake", "hawk", "mouse", "owl", "wolf", "beetle")
FIELDS = ("Name", "City", "Age", "Day", "Room", "Code")
SHOPS = ("Cafe", "Market", "Store", "Bakery")
COLUMNS = ("age", "score", "rank", "goals")
TITLES = ("Menu", "News", "Offers", "Plans", "Team", "Notes")
NOTES = ("open daily", "closed today", "new here", "free entry", "sold out", "last week")
BUTTONS = ("Buy", "Send", "Next", "Help", "Join")
TOTALS = ("Total",)

WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        word
        for group in (
            FOODS,
            NAMES,
            CITIES,
            DAYS,
            ANIMALS,
            FIELDS,
            SHOPS,
            COLUMNS,
            TITLES,
            NOTES,
            BUTTONS,
            TOTALS,
        )
        for phrase in group
        for word in phrase.split()
    )
)
