"""Sample data: books that one can buy, and what made-up readers say about them."""

from typing import Any, Final

READERS: Final[list[dict[str, Any]]] = [
    {"email": "seoyeon@example.com", "name": "김서연"},
    {"email": "minjun@example.com", "name": "이민준"},
    {"email": "haneul@example.com", "name": "박하늘"},
    {"email": "jiwoo@example.com", "name": "최지우"},
]

_CHANGBI, _MUNHAK = "창비", "문학동네"


def _book(isbn: str, title: str, author: str, publisher: str, published: str, pages: int, **source: str) -> dict[str, Any]:
    return {
        "isbn": isbn,
        "title": title,
        "author": author,
        "publisher": publisher,
        "published_date": published,
        "page_count": pages,
        "language": "ko",
        **(source or {"external_source": "ALADIN", "external_id": isbn}),
    }


BOOKS: Final[list[dict[str, Any]]] = [
    _book("9788936433598", "채식주의자", "한강", _CHANGBI, "2007-10-30", 192, external_source="ALADIN", external_id="K432433598"),
    _book("9788936434120", "소년이 온다", "한강", _CHANGBI, "2014-05-19", 216),
    _book("9788954682152", "작별하지 않는다", "한강", _MUNHAK, "2021-09-09", 332),
    _book("9788937473135", "82년생 김지영", "조남주", "민음사", "2016-10-14", 192),
    _book("9788936434267", "아몬드", "손원평", _CHANGBI, "2017-03-31", 264),
    _book("9791190090018", "우리가 빛의 속도로 갈 수 없다면", "김초엽", "허블", "2019-06-24", 344),
    _book("9791165341909", "달러구트 꿈 백화점", "이미예", "팩토리나인", "2020-07-08", 300),
    _book("9791161571188", "불편한 편의점", "김호연", "나무옆의자", "2021-04-20", 268, external_source="MANUAL"),
]


def _review(
    key: str, by: str, isbn: str, title: str | None, content: str, rating: int | None, read: str, published: str | None
) -> dict[str, Any]:
    return {
        "key": key,
        "by": f"{by}@example.com" if "@" not in by else by,
        "isbn": isbn,
        "title": title,
        "content": content,
        "rating": rating,
        "is_recommended": rating is not None and rating >= 4,
        "read_status": read,
        "status": "DRAFT" if published is None else "PUBLISHED",
        "published_at": published,
    }


_DONE, _READING, _DROPPED = "COMPLETED", "READING", "DROPPED"

REVIEWS: Final[list[dict[str, Any]]] = [
    _review(
        *("quiet-refusal", "seoyeon", "9788936433598", "조용한 거부의 힘"),
        "고기를 먹지 않겠다는 한마디가 한 집안을 흔든다. 정작 영혜의 말은 거의 들리지 않는데, 그 침묵이 남는다.",
        *(5, _DONE, "2025-01-12T09:30:00+09:00"),
    ),
    _review(
        *("three-voices", "minjun", "9788936433598", "세 개의 시선"),
        "문장은 단정한데 읽는 내내 숨이 찼다. 두 번째 이야기는 쉽게 좋아하기 어려웠지만, 덮고 나니 왜 거기 있어야 했는지 알 것 같다.",
        *(4, _DONE, "2025-02-03T22:10:00+09:00"),
    ),
    _review(
        *("not-for-me", "haneul", "9788936433598", None),
        "좋은 소설이라는 건 알겠는데 지금의 나에게는 너무 날카로웠다. 중간에 덮었고, 언젠가 다시 펼칠 생각이다.",
        *(None, _DROPPED, "2025-02-20T08:05:00+09:00"),
    ),
    _review(
        *("may", "jiwoo", "9788936434120", "오월을 기억하는 방법"),
        "이인칭으로 부르는 첫 장부터 독자를 그 자리에 세운다. 슬픔을 크게 말하지 않아서 더 오래 아프다. 천천히, 나누어 읽기를 권한다.",
        *(5, _DONE, "2025-05-18T10:00:00+09:00"),
    ),
    _review(
        *("may-again", "dev@valuerank.ai", "9788936434120", "두 번째 읽기"),
        "처음에는 사건을 따라 읽었고, 이번에는 목소리를 따라 읽었다. 장마다 말하는 사람이 달라지는 까닭이 비로소 보였다.",
        *(5, _DONE, "2025-06-02T21:45:00+09:00"),
    ),
    _review(
        *("snow", "seoyeon", "9788954682152", "눈 속을 걷는 소설"),
        "눈과 새와 촛불이 계속 돌아온다. 아직 절반쯤이지만, 서두르면 안 되는 책이라는 것은 분명하다.",
        *(None, _READING, "2025-07-21T07:20:00+09:00"),
    ),
    _review(
        *("everybody", "minjun", "9788937473135", "누구나 아는 이야기"),
        "새로운 이야기가 아니라서 오히려 놀랐다. 보고서처럼 건조한 문장이 의도라는 건 알지만, 소설로서는 조금 아쉬웠다.",
        *(3, _DONE, "2025-03-08T12:00:00+09:00"),
    ),
    _review(
        *("gift", "jiwoo", "9788937473135", None),
        "어머니께 선물했다가 돌려 읽게 된 책. 같은 대목에 밑줄이 그어져 있어서 한참 이야기를 나누었다.",
        *(4, _DONE, "2025-03-30T19:15:00+09:00"),
    ),
    _review(
        *("almond", "haneul", "9788936434267", "감정을 배우는 아이"),
        "느끼지 못하는 아이와 너무 많이 느끼는 아이가 친구가 된다. 하룻밤에 다 읽었고, 조카에게도 건넸다.",
        *(5, _DONE, "2025-04-11T23:50:00+09:00"),
    ),
    _review(
        *("almond-second", "dev@valuerank.ai", "9788936434267", "기대가 컸던 탓일까"),
        "설정은 흥미로운데 후반부의 사건이 지나치게 극적이다. 앞부분의 담담함이 끝까지 갔더라면 좋았겠다.",
        *(2, _DONE, "2025-04-29T13:33:00+09:00"),
    ),
    _review(
        *("light", "minjun", "9791190090018", "멀리 있는 것들에 대하여"),
        "과학소설을 어려워하는 사람에게 권하고 싶은 단편집이다. 표제작의 기다림은 우주가 아니라 사람의 이야기였다.",
        *(5, _DONE, "2025-08-05T18:00:00+09:00"),
    ),
    _review(
        *("dreams", "seoyeon", "9791165341909", "잠들기 전에 한 장씩"),
        "가볍고 다정하다. 갈등이 약해서 책장이 빨리 넘어가지는 않지만, 자기 전에 읽기에는 이만한 책이 없다.",
        *(3, _READING, "2025-08-17T00:40:00+09:00"),
    ),
    _review(
        *("dreams-dropped", "jiwoo", "9791165341909", None),
        "세계를 설명하는 데 너무 오래 걸린다. 백 쪽쯤에서 멈췄다.",
        *(1, _DROPPED, "2025-09-01T15:25:00+09:00"),
    ),
    _review(
        *("store", "haneul", "9791161571188", "새벽의 편의점"),
        "어디선가 본 듯한 인물들인데 미워할 수가 없다. 늦은 밤 편의점에 들를 때마다 생각날 것 같다.",
        *(4, _DONE, "2025-10-10T20:00:00+09:00"),
    ),
    _review(
        *("store-draft", "dev@valuerank.ai", "9791161571188", "쓰는 중"),
        "도시락 이야기부터 다시 정리할 것. 별점은 다 읽고 나서.",
        *(None, _READING, None),
    ),
    _review(
        *("snow-draft", "minjun", "9788954682152", None),
        "첫 문장을 옮겨 적다가 멈췄다. 무슨 말을 보태야 할지 아직 모르겠다.",
        *(None, _READING, None),
    ),
]

LIKES: Final[list[dict[str, str]]] = [
    {"review": review, "by": f"{by}@example.com"}
    for review, readers in {
        "quiet-refusal": ("minjun", "haneul", "jiwoo"),
        "may": ("seoyeon", "minjun", "haneul"),
        "light": ("seoyeon", "jiwoo"),
        "almond": ("minjun",),
        "store": ("seoyeon",),
    }.items()
    for by in readers
]

BOOKMARKS: Final[list[dict[str, str]]] = [
    {"review": "may", "by": "seoyeon@example.com"},
    {"review": "light", "by": "haneul@example.com"},
    {"review": "quiet-refusal", "by": "jiwoo@example.com"},
]

_SHORT = (
    ("단숨에 읽었다. 다음 책도 기다린다.", 5, _DONE),
    ("차분하고 성실한 소설. 몇몇 장면은 오래 남는다.", 4, _DONE),
    ("나쁘지 않았지만 다시 읽을 것 같지는 않다.", 3, _DONE),
    ("기대와는 다른 책이었다. 취향의 문제일지도.", 2, _DROPPED),
    ("아직 읽는 중이라 별점은 미룬다.", None, _READING),
)


def many_reviews(people: int, each: int) -> list[dict[str, Any]]:
    """Return short reviews of the people of the profile qa, as many of each."""
    found = []
    for number in range(people * each):
        content, rating, read = _SHORT[number * 7 % len(_SHORT)]
        person, book = number // each + 1, BOOKS[number * 5 % len(BOOKS)]
        published = f"2025-{number % 12 + 1:02}-{number % 28 + 1:02}T{number % 24:02}:{number % 60:02}:00+09:00"
        found.append(_review(f"qa-{number + 1}", f"qa{person}", book["isbn"], None, content, rating, read, published))
    return found
