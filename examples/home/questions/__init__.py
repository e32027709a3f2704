"""An examination about life in a home: questions made from what truly happened, graded on values.

`Examination` draws questions from a truth log; `ValueScorer` grades answers; `rivals` answer the same questions by
other means. `QuestionSource` and `Scorer` are all that a report needs, so others can bring their own.
"""

from .generate import Examination
from .question import Grade, Question, QuestionSource, Scorer, Tally, ValueScorer, tally

__all__ = ["Examination", "Grade", "Question", "QuestionSource", "Scorer", "Tally", "ValueScorer", "tally"]
