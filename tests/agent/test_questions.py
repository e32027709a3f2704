"""Questions. FIRST, SECOND and THIRD were written by imagining users before the rules saw them; right on the first run
were 70 of 71, 66 of 76 and 86 of 95. They are kept as a regression table."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perdure.agent.questions import (
    QUERY_SCHEMA,
    Query,
    parse_question,
    parse_questions,
    query_from_json,
    question_prompt,
)
from perdure.errors import BadInput
from perdure.perception.statements import entity_key, parse_statements
from perdure.records import Interval

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 15, 0, tzinfo=BERLIN)  # a Monday


def local(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=BERLIN)


def ask(text: str) -> Query:
    return parse_question(text, NOW, BERLIN)


# kind, subject, predicate, object, order, whether a time was named
# Wish changed after the first run: "when did Anna take the mug" keeps the doer; "what is the weather like" asks what
# was told.
FIRST = [
    ("Where is the spare key?", ("location", "spare key", "location", None, None, False)),
    ("where did i leave my glasses", ("location", "owner's glasses", "location", None, None, False)),
    ("Do you know where my passport is?", ("location", "owner's passport", "location", None, None, False)),
    ("Where were the keys on Tuesday evening?", ("location", "keys", "location", None, None, True)),
    ("where can I find the scissors", ("location", "scissors", "location", None, None, False)),
    ("In which drawer are the batteries?", ("location", "batteries", "location", None, None, False)),
    ("Which room is the drill in?", ("location", "drill", "location", None, None, False)),
    ("Where's Anna", ("location", "anna", "location", None, None, False)),
    ("Have you seen my phone?", ("yes_no", "owner's phone", "seen", None, None, False)),
    ("Whose bike is the red one?", ("owner", "red bike", "owner", None, None, False)),
    ("Who does the green backpack belong to?", ("owner", "green backpack", "owner", None, None, False)),
    ("whose is the blue umbrella", ("owner", "blue umbrella", "owner", None, None, False)),
    ("Who owns the laptop?", ("owner", "laptop", "owner", None, None, False)),
    ("What's the door code?", ("attribute", "door", "code", None, None, False)),
    ("tell me the wifi password", ("attribute", "wifi", "password", None, None, False)),
    ("What is the code for the garage?", ("attribute", "garage", "code", None, None, False)),
    ("When is Anna's birthday?", ("attribute", "anna", "birthday", None, None, False)),
    ("What colour is the mug?", ("attribute", "mug", "colour", None, None, False)),
    ("what is my name", ("attribute", "owner", "name", None, None, False)),
    ("Who is Anna's brother?", ("attribute", "anna", "brother", None, None, False)),
    ("What is the name of our cat?", ("attribute", "cat", "name", None, None, False)),
    ("what's my mother's phone number?", ("attribute", "owner's mother", "phone number", None, None, False)),
    ("Who is Dr. Weber?", ("attribute", "dr weber", "is", None, None, False)),
    ("What is Anna allergic to?", ("attribute", "anna", "allergic to", None, None, False)),
    ("Who moved the keys?", ("who_did", "keys", "move", None, None, False)),
    ("Who took the mug to the kitchen yesterday?", ("who_did", "mug", "take", None, None, True)),
    ("who has the drill?", ("location", "drill", "location", None, None, False)),
    ("Who came this morning?", ("who_did", None, "come", None, None, True)),
    ("Who put the presents under the bed?", ("who_did", "presents", "put", None, None, False)),
    ("What does Anna like to drink?", ("likes", "anna", "likes", None, None, False)),
    ("Does Tom like loud music?", ("likes", "tom", "likes", "loud music", None, False)),
    ("What do I hate?", ("likes", "owner", "likes", None, None, False)),
    ("who likes jazz", ("likes", None, "likes", "jazz", None, False)),
    ("Is the key in the tin?", ("yes_no", "key", "location", "in the tin", None, False)),
    ("Was the bedroom window open last night?", ("yes_no", "bedroom window", "opening", "open", None, True)),
    ("Is the washing machine still broken?", ("yes_no", "washing machine", "condition", "broken", None, False)),
    ("Is Tom Anna's brother?", ("yes_no", "anna", "brother", "tom", None, False)),
    ("Does the red bike belong to Tom?", ("yes_no", "red bike", "owner", "tom", None, False)),
    ("Did the plumber come?", ("yes_no", "plumber", "come", None, None, False)),
    ("Are my keys on the table?", ("yes_no", "owner's keys", "location", "on the table", None, False)),
    ("When did you last see a bike?", ("when_seen", "bike", "seen", None, "last", False)),
    ("When was the last time you saw a dog?", ("when_seen", "dog", "seen", None, "last", False)),
    ("At what time did the first person appear?", ("when_seen", "person", "seen", None, "first", False)),
    ("when did you see my cat", ("when_seen", "owner's cat", "seen", None, None, False)),
    ("When was a car first visible?", ("when_seen", "car", "seen", None, "first", False)),
    ("when did i tell you about the spare key?", ("when_told", "spare key", "told", None, None, False)),
    ("When did I say that Anna likes tea?", ("when_told", "anna", "likes", "tea", None, False)),
    ("When did the plumber come?", ("when_happened", "plumber", "come", None, None, False)),
    ("what time did the parcel arrive", ("when_happened", "parcel", "arrive", None, None, False)),
    ("When is the bin collected?", ("when_happened", "bin", "collect", None, None, False)),
    ("When is my dentist appointment?", ("when_happened", "owner's dentist appointment", "happen", None, None, False)),
    ("When did Anna take the mug to the kitchen?", ("when_happened", "mug", "take", "anna", None, False)),
    ("How many people did you see yesterday?", ("count", "people", "seen", None, None, True)),
    ("How many bikes were there between 9 and 10?", ("count", "bikes", "seen", None, None, True)),
    ("how often did Anna come last week", ("count", "anna", "come", None, None, True)),
    ("How many times was the door opened today?", ("count", "door", "open", None, None, True)),
    ("What did you see this morning?", ("what_seen", None, "seen", None, None, True)),
    ("What happened at 9:30?", ("what_seen", None, "seen", None, None, True)),
    ("what was going on in the kitchen last night?", ("what_seen", "kitchen", "seen", None, None, True)),
    ("Did anything happen while I was away?", ("what_seen", None, "seen", None, None, False)),
    ("Were you switched off last night?", ("outage", None, "outage", "any", None, True)),
    ("How long were you asleep?", ("outage", None, "outage", "how long", None, False)),
    ("When did you last crash?", ("outage", None, "outage", "when", "last", False)),
    ("was there a power cut yesterday", ("outage", None, "outage", "any", None, True)),
    ("What did I tell you about Anna?", ("what_told", "anna", "told", None, None, False)),
    ("what do you know about the garage", ("what_told", "garage", "told", None, None, False)),
    ("What did I say yesterday?", ("what_told", None, "told", None, None, True)),
    ("Why is the sky blue?", ("unknown", None, None, None, None, False)),
    ("hello there", ("unknown", None, None, None, None, False)),
    ("wo ist der Schlüssel?", ("unknown", None, None, None, None, False)),
    ("the spare key?", ("unknown", None, None, None, None, False)),
]
SECOND = [
    ("Where is Mary?", ("location", "mary", "location", None, None, False)),
    ("where the heck are my reading glasses", ("location", "owner's reading glasses", "location", None, None, False)),
    ("where do we keep the batteries?", ("location", "batteries", "location", None, None, False)),
    ("Any idea where I put my wallet?", ("location", "owner's wallet", "location", None, None, False)),
    ("I can't find my hearing aid, where is it?", ("location", "owner's hearing aid", "location", None, None, False)),
    ("Where did Tom put the ladder yesterday", ("location", "ladder", "location", None, None, True)),
    ("Where was the football before the kitchen?", ("unknown", None, None, None, None, False)),
    ("where's the car parked", ("location", "car", "location", None, None, False)),
    ("Which cupboard is the sugar in?", ("location", "sugar", "location", None, None, False)),
    ("Could you tell me where the fuse box is?", ("location", "fuse box", "location", None, None, False)),
    ("what's in the toolbox?", ("location", None, "location", "in the toolbox", None, False)),
    ("Where was Anna at 9:30 this morning?", ("location", "anna", "location", None, None, True)),
    ("to whom does the piano belong?", ("owner", "piano", "owner", None, None, False)),
    ("Is that black suitcase mine?", ("yes_no", "black suitcase", "owner", "owner", None, False)),
    ("Who is the owner of the red bike?", ("owner", "red bike", "owner", None, None, False)),
    ("whose keys are on the table?", ("owner", "keys", "owner", None, None, False)),
    ("What does Tom own?", ("owner", None, "owner", "tom", None, False)),
    ("what was the pin for the safe again?", ("attribute", "safe", "pin", None, None, False)),
    ("How old is Emma?", ("attribute", "emma", "age", None, None, False)),
    ("What's Tom's number", ("attribute", "tom", "number", None, None, False)),
    ("what is my daughter called?", ("attribute", "owner's daughter", "name", None, None, False)),
    ("what is Emma's favourite animal", ("attribute", "emma", "favourite animal", None, None, False)),
    ("Who is my dentist?", ("attribute", "owner", "dentist", None, None, False)),
    ("What colour was the sofa?", ("attribute", "sofa", "colour", None, None, False)),
    ("where does Lisa work", ("attribute", "lisa", "work", None, None, False)),
    ("Who are you?", ("attribute", "agent", "is", None, None, False)),
    ("what am I allergic to", ("attribute", "owner", "allergic to", None, None, False)),
    ("Do you know when my sister's birthday is?", ("attribute", "owner's sister", "birthday", None, None, False)),
    ("Who has taken my umbrella?", ("who_did", "owner's umbrella", "take", None, None, False)),
    ("who opened the window last night", ("who_did", "window", "open", None, None, True)),
    ("Who rang the bell at 4?", ("who_did", "bell", "ring", None, None, True)),
    ("who was in the kitchen yesterday evening?", ("who_did", None, "location", "in the kitchen", None, True)),
    ("By whom was the sofa moved?", ("who_did", "sofa", "move", None, None, False)),
    ("What food does Emma hate?", ("likes", "emma", "likes", None, None, False)),
    ("do I like broccoli?", ("likes", "owner", "likes", "broccoli", None, False)),
    ("Which of them likes pizza?", ("unknown", None, None, None, None, False)),
    ("is the front door locked", ("yes_no", "front door", "lock", "locked", None, False)),
    ("Are the lights still on?", ("yes_no", "lights", "power", "on", None, False)),
    ("Did Tom take my umbrella?", ("yes_no", "owner's umbrella", "take", "tom", None, False)),
    ("Was Anna in the garden this afternoon?", ("yes_no", "anna", "location", "in the garden", None, True)),
    ("Has the postman been here today?", ("yes_no", "postman", "location", "here", None, True)),
    ("Is Lisa Tom's girlfriend?", ("yes_no", "tom", "girlfriend", "lisa", None, False)),
    ("Did you see a dog yesterday?", ("yes_no", "dog", "seen", None, None, True)),
    ("was there anybody at the door?", ("yes_no", "person", "seen", "at the door", None, False)),
    ("When did you first notice the red car?", ("when_seen", "red car", "seen", None, "first", False)),
    ("what time did you see the cyclist", ("when_seen", "cyclist", "seen", None, None, False)),
    ("When was the cat last seen?", ("when_seen", "cat", "seen", None, "last", False)),
    ("When does a bike come into view?", ("when_seen", "bike", "seen", None, None, False)),
    ("when did i mention the dentist", ("when_told", "dentist", "told", None, None, False)),
    ("When did you learn that the key is in the tin?", ("when_told", "key", "location", "in the tin", None, False)),
    ("When did the alarm go off?", ("when_happened", "alarm", "go", "off", None, False)),
    ("when was the last time Tom visited us", ("when_happened", "tom", "visit", "we", "last", False)),
    ("When does the cleaning lady come?", ("when_happened", "cleaning lady", "come", None, None, False)),
    ("When was the newspaper delivered today?", ("when_happened", "newspaper", "deliver", None, None, True)),
    ("when is my son arriving", ("when_happened", "owner's son", "arrive", None, None, False)),
    ("When did I take my pills?", ("when_happened", "owner's pills", "take", "owner", None, False)),
    ("How many cars passed this morning?", ("count", "cars", "pass", None, None, True)),
    ("how many different people have you seen today?", ("count", "different people", "seen", None, None, True)),
    ("How often does the cat go out", ("count", "cat", "go", "out", None, False)),
    ("how many cups are on the table", ("count", "cups", "location", "on the table", None, False)),
    ("Tell me what happened yesterday.", ("what_seen", None, "seen", None, None, True)),
    ("anything new?", ("what_seen", None, "seen", None, None, False)),
    ("What did Anna do this afternoon?", ("what_seen", "anna", "seen", None, None, True)),
    ("who did you see between 9 and 10?", ("what_seen", "person", "seen", None, None, True)),
    ("What have you seen in the garden?", ("what_seen", "garden", "seen", None, None, False)),
    ("Have you been off?", ("outage", None, "outage", "any", None, False)),
    ("how many times did you crash this week", ("outage", None, "outage", "how often", None, True)),
    ("when were you last switched off and for how long?", ("outage", None, "outage", "when", "last", False)),
    ("Were you awake at 3 in the morning?", ("outage", None, "outage", "any", None, True)),
    ("What have I told you about my daughter?", ("what_told", "owner's daughter", "told", None, None, False)),
    ("tell me everything you know about Tom", ("what_told", "tom", "told", None, None, False)),
    ("Do you remember what I said about the fuse box?", ("what_told", "fuse box", "told", None, None, False)),
    ("What's the weather like?", ("what_told", "weather", "told", None, None, False)),
    ("Sing a song", ("unknown", None, None, None, None, False)),
    ("how do I bake bread?", ("unknown", None, None, None, None, False)),
    ("what is 2 + 2?", ("unknown", None, None, None, None, False)),
]


@pytest.mark.parametrize(("text", "expected"), FIRST + SECOND, ids=[text[:40] for text, _ in FIRST + SECOND])
def test_an_imagined_question_asks_what_its_speaker_meant(text, expected):
    query = ask(text)
    assert (query.kind, query.subject, query.predicate, query.object, query.order, query.when is not None) == expected


THIRD = {
    "location": [
        ("Where did the scissors go?", "scissors"),
        ("Where have I left my umbrella?", "owner's umbrella"),
        ("Tell me where the hammer was last week", "hammer"),
        ("Where would I find the spare bulbs?", "spare bulbs"),
        ("On which shelf is the sugar?", "sugar"),
        ("where's my other shoe", "owner's other shoe"),
        ("Where was the red car parked yesterday?", "red car"),
        ("Where does the vacuum cleaner belong?", "vacuum cleaner"),
    ],
    "owner": [
        ("Whose is this green scarf?", "green scarf"),
        ("Whose jacket is hanging in the hall?", "jacket"),
        ("Do you know who owns the boat?", "boat"),
        ("Who do these gloves belong to?", "gloves"),
        ("Can you tell me whose bike the red one is?", "red bike"),
        ("Who is the laptop's owner?", "laptop"),
    ],
    "attribute": [
        ("What is the combination of the safe?", "safe"),
        ("what's the password for the guest wifi", "guest wifi"),
        ("How heavy is the parcel?", "parcel"),
        ("What brand is the dishwasher?", "dishwasher"),
        ("When is Julia's birthday?", "julia"),
        ("What is the cat's name?", "cat"),
        ("which color is the front door?", "front door"),
        ("Who is Tom's wife?", "tom"),
    ],
    "who_did": [
        ("Who brought the flowers?", "flowers"),
        ("Who broke the vase yesterday?", "vase"),
        ("who was it that moved my chair?", "owner's chair"),
        ("Do you know who left the door open?", "door"),
        ("Who put the milk in the cupboard?", "milk"),
        ("Who stole my sandwich", "owner's sandwich"),
        ("Who fed the cat this morning?", "cat"),
    ],
    "likes": [
        ("Does Emma like strawberries?", "emma"),
        ("What kind of music does Tom like?", "tom"),
        ("what does my wife enjoy", "owner's wife"),
        ("Do you know what Anna likes?", "anna"),
        ("Which tea do I prefer?", "owner"),
        ("Is Tom fond of jazz?", "tom"),
    ],
    "yes_no": [
        ("Is the stove off?", "stove"),
        ("Was the gate closed at 10?", "gate"),
        ("Are there any eggs in the fridge?", "eggs"),
        ("Is Rex in the garden?", "rex"),
        ("Did anyone ring the bell today?", "person"),
        ("Does the blue mug belong to Anna?", "blue mug"),
        ("Is it true that the bin is collected every Friday?", "bin"),
    ],
    "when_seen": [
        ("When did you last see Anna?", "anna"),
        ("When was the first time you saw a bike?", "bike"),
        ("When did a truck pass by?", "truck"),
        ("at what time was the dog visible?", "dog"),
        ("When was the postman last here?", "postman"),
        ("How long ago did you see the cat?", "cat"),
        ("When have you seen the red car?", "red car"),
    ],
    "when_told": [
        ("When did I tell you where the key is?", "key"),
        ("When did I say the bin is collected on Friday?", "bin"),
        ("When were you told about the party?", "party"),
        ("when did we last mention Julia", "julia"),
        ("How did you learn about the boat?", "boat"),
        ("Since when do you know about the leak?", "leak"),
    ],
    "when_happened": [
        ("When did the parcel arrive?", "parcel"),
        ("When was the heating repaired?", "heating"),
        ("What time does the cleaner come?", "cleaner"),
        ("On what day is the garbage collected?", "garbage"),
        ("When will Tom be back?", "tom"),
        ("When did Julia leave?", "julia"),
        ("when is the party", "party"),
    ],
    "count": [
        ("How many dogs have you seen this week?", "dogs"),
        ("How many visitors came on Saturday?", "visitors"),
        ("How often did you see the cat?", "cat"),
        ("How many times did the phone ring?", "phone"),
        ("how many people were in the garden?", "people"),
        ("How many cyclists did you notice between 9 and 10?", "cyclists"),
    ],
    "what_seen": [
        ("What happened between 2 and 4?", None),
        ("What did you notice last night?", None),
        ("Did you see anything in the garden?", "garden"),
        ("Show me what you saw at 9:30", None),
        ("what was happening at noon", None),
        ("Who did you see this morning?", "person"),
        ("What has happened since Monday?", None),
    ],
    "outage": [
        ("Were you offline yesterday?", None),
        ("Have you been switched off?", None),
        ("How long were you down last night?", None),
        ("When did you wake up?", None),
        ("Was there a blackout this week?", None),
        ("How often were you restarted?", None),
        ("Did you sleep last night?", None),
    ],
    "what_told": [
        ("What did I say about the party?", "party"),
        ("Do you know anything about Tom?", "tom"),
        ("What have I told you so far?", None),
        ("Tell me what you know about the boat.", "boat"),
        ("What do you remember about my wife?", "owner's wife"),
        ("what did we mention yesterday", None),
        ("What did you learn about Anna?", "anna"),
    ],
    "unknown": [
        ("How is the weather in Paris?", None),
        ("Why did the chicken cross the road?", None),
        ("", None),
        ("???", None),
        ("please dance", None),
        ("the", None),
    ],
}


@pytest.mark.parametrize(
    ("kind", "text", "subject"),
    [(kind, text, subject) for kind, rows in THIRD.items() for text, subject in rows],
)
def test_every_kind_has_many_wordings(kind, text, subject):
    query = ask(text)
    assert (query.kind, query.subject) == (kind, subject)
    assert query.text == text


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("Where were the keys on Tuesday evening?", local(17, 18), local(18)),
        ("Where was Anna at 9?", local(23, 9), local(23, 9, 1)),
        ("What did you see at 9?", local(23, 8, 30), local(23, 9, 31)),
        ("What did you see at 9:30?", local(23, 9, 25), local(23, 9, 36)),
        ("Who moved the keys on Tuesday between 9 and 10?", local(17, 9), local(17, 10)),
        ("did you see anyone yesterday after 9?", local(22, 9), local(23)),
        ("What has happened since Monday?", local(16), None),
        ("Where was the key before yesterday?", None, local(22)),
    ],
)
def test_a_question_is_about_the_time_it_names(text, start, end):
    assert ask(text).when == Interval(start, end)


def test_a_compound_question_gives_one_query_for_each_part():
    where, who = parse_questions("Where were the keys on Tuesday evening, and who moved them?", NOW, BERLIN)
    assert (where.kind, where.subject) == ("location", "keys")
    assert (who.kind, who.subject, who.predicate) == ("who_did", "keys", "move")
    assert [q.subject for q in parse_questions("Where are the keys and the wallet?", NOW, BERLIN)] == ["keys", "wallet"]


def test_the_time_in_front_belongs_to_the_question():
    assert ask("Yesterday, what did you see?").when == Interval(local(22), local(23))


def test_i_is_the_asker():
    assert parse_question("where are my keys", NOW, BERLIN, "Vera").subject == "vera's keys"
    assert parse_question("what is my name", NOW, BERLIN, "vera").subject == "vera"


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("The spare key is in the blue tin.", "Where is the spare key?"),
        ("I put my glasses on the desk", "where are my glasses"),
        ("The code for the garage is 0815", "what's the garage code?"),
        ("Anna's birthday is 3 May", "When is the birthday of Anna?"),
        ("The red bikes belong to Tom", "Whose is the red bike?"),
        ("Tom is Anna's brother", "Who is Anna's brother?"),
        ("The mug is blue", "What color is the mug?"),
        ("Anna likes tea", "What does Anna like?"),
        ("the bin is collected every Friday", "When is the bin collected?"),
        ("The plumber came at 9", "when did the plumber come?"),
        ("My bike is the red one", "Whose is the red bike?"),
        ("The bedroom window is open", "Is the bedroom window open?"),
        ("Our cat is called Miso", "What is the name of the cat?"),
    ],
)
def test_a_question_names_what_the_statement_named(told, asked):
    statement, query = parse_statements(told, NOW, BERLIN)[0], ask(asked)
    assert entity_key(query.subject or "") == entity_key(statement.subject)
    assert query.predicate == statement.predicate


def test_a_naive_time_is_refused():
    with pytest.raises(BadInput, match="aware"):
        parse_question("where is the key", datetime(2026, 1, 1), BERLIN)
    with pytest.raises(BadInput, match="aware"):
        query_from_json({}, "where is the key", datetime(2026, 1, 1), BERLIN)


MODEL_SAYS = {"kind": "location", "subject": "the key", "predicate": "code", "object": None, "order": None}


def test_what_a_model_read_becomes_a_query_with_the_time_of_the_text():
    query = query_from_json(MODEL_SAYS, "the key yesterday, its whereabouts", NOW, BERLIN)
    assert (query.kind, query.subject, query.predicate) == ("location", "key", "location")
    assert query.when == Interval(local(22), local(23))


def test_a_model_that_made_up_words_is_not_believed():
    assert query_from_json(MODEL_SAYS, "the tin, its whereabouts", NOW, BERLIN).kind == "unknown"


@pytest.mark.parametrize(
    "junk",
    [
        None,
        3,
        [],
        {},
        {"kind": "x"},
        {"kind": ["location"]},
        {**MODEL_SAYS, "subject": None},
        {**MODEL_SAYS, "subject": 3},
    ],
)
def test_an_answer_of_another_shape_is_unknown(junk):
    assert query_from_json(junk, "where is the key", NOW, BERLIN) == Query("unknown", text="where is the key")


def test_prompts_share_all_but_the_last_message():
    assert question_prompt("a")[:-1] == question_prompt("b")[:-1]
    assert question_prompt("where")[-1] == {"role": "user", "content": "where"}


def test_the_schema_compiles_to_a_grammar():
    llguidance = pytest.importorskip("llguidance")
    assert llguidance.LLMatcher.grammar_from_json_schema(dict(QUERY_SCHEMA))


ALL = [text for text, _ in FIRST + SECOND] + [text for rows in THIRD.values() for text, _ in rows]
WORDS = sorted({word for text in ALL for word in text.split()})


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)))
def test_no_text_raises_and_the_same_text_asks_the_same(text):
    queries = parse_questions(text, NOW, BERLIN)
    assert queries
    assert queries == parse_questions(text, NOW, BERLIN)


@given(
    st.dictionaries(
        st.sampled_from(list(QUERY_SCHEMA["properties"])),
        st.none() | st.text(max_size=9) | st.integers() | st.just("count") | st.lists(st.text(max_size=3)),
    )
)
def test_no_answer_of_a_model_raises(obj):
    assert isinstance(query_from_json(obj, "where is the key", NOW, BERLIN), Query)
