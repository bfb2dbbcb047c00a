"""Whether a sentence states something that could be right or wrong of an image, by its words alone.

It does with a number, or with a word that neither belongs to how one reasons aloud nor stands in the question. Words are
English; of a text without Latin letters every sentence counts.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What holds sentences together, and what one says about one's own reading
PLAIN = _words("""
a about above across actually after again against all alone along already alright also although always am among an and
another answer answered answers any anything approach are around as ask asked asks assume at away back based be
because been before begin begins being below beside between both but by came can cannot carefully case check checked
checking clear clearly come comes compare compared comparing confirm confirmed consider correct could count counted
counting describe described describing detail details determine did difference different do does doing done double
down during each either else end enough even ever every everything explain few figure final finally find finding first
for found from further get gets give given gives go goes going got had has have having he hence her here him his hmm
how however i identify if image important in indeed information instead interesting into is issue it its itself just
keep know known last lastly later least less let like likely look looking looks made make makes many may maybe me mean
means might more most much must my near necessary need needs neither never next no none nor not note nothing notice
now observe of off ok okay on once one only or order other others otherwise our out over own part parts per perhaps
photo picture please point possible present problem provided provides put question questions quite rather read reading
readings really reason reasoning recall recheck reread result results right same say saying says scan see seem seems
seen settle settled shall she should show shown shows since so solution solve solving some something soon step steps
still such sure take takes tell tells than that the their them themselves then there therefore these they thing things
think thinking this those though thought through thus time times to together told too total toward twice under
understand until up upon us use used using verify very wait want wants was way we well were what when where whether
which while who whole whose why will with within without would wrong yes yet you your
""")
CLOSING = re.compile(r"</\w+>")  # a tag that was opened before
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def states(sentence: str, question: str) -> bool:
    """Whether a sentence, or line of code, states something beyond what the question says."""
    sentence = CLOSING.sub("", sentence)
    if any(letter.isdigit() for letter in sentence):
        return True
    words = {word.lower() for word in WORD.findall(sentence)}
    if not words:
        return any(letter.isalpha() for letter in sentence)
    return bool(words - PLAIN - {word.lower() for word in WORD.findall(question)})
