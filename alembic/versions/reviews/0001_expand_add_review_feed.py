"""
Books, reviews of them, likes and bookmarks, and where reviews stood among the most liked before.

Phase:  expand. The first revision of its branch; a release without the pack keeps working beside it.
Locks:  SHARE ROW EXCLUSIVE on users for milliseconds, because new foreign keys point at it: writes to it wait.
Undo:   loses every book, review, like and bookmark.
"""

from alembic import op

revision = "reviews_0001"
down_revision = None
branch_labels = ("reviews",)
depends_on = ("base_0001",)

_TYPES = {
    "external_source": "('GOOGLE_BOOKS', 'ALADIN', 'MANUAL')",
    "read_status": "('READING', 'COMPLETED', 'DROPPED')",
    "review_status": "('DRAFT', 'PUBLISHED', 'DELETED')",
}

# In the order of their references. PostgreSQL checks the foreign keys of a row in the order in which they were made: the one to users
# comes first, because whoever removes a user holds the user before anything of theirs.
_TABLES = {
    "books": """
    CREATE TABLE stemma.books (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        isbn text,
        title text NOT NULL,
        author text NOT NULL,
        publisher text,
        published_date date,
        cover_image_url text,
        description text,
        page_count integer,
        language text NOT NULL DEFAULT 'ko',
        external_source stemma.external_source,
        external_id text,
        external_fetched_at timestamptz,
        search_vector tsvector GENERATED ALWAYS AS (
            setweight(to_tsvector('simple', coalesce(title, '')), 'A') || setweight(to_tsvector('simple', coalesce(author, '')), 'B')
        ) STORED,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT books_pkey PRIMARY KEY (id),
        CONSTRAINT books_isbn_key UNIQUE (isbn),
        CONSTRAINT books_external_source_external_id_key UNIQUE (external_source, external_id),
        CONSTRAINT books_isbn_format_check CHECK (isbn IS NULL OR isbn ~ '^([0-9]{9}[0-9X]|[0-9]{13})$'),
        CONSTRAINT books_page_count_check CHECK (page_count IS NULL OR page_count > 0),
        CONSTRAINT books_title_check CHECK (btrim(title) <> ''),
        CONSTRAINT books_external_check CHECK ((external_source IS NULL OR external_source = 'MANUAL') OR external_id IS NOT NULL)
    );
    CREATE INDEX books_title_idx ON stemma.books (title);
    CREATE INDEX books_author_idx ON stemma.books (author);
    CREATE INDEX books_search_vector_idx ON stemma.books USING gin (search_vector)
    """,
    "reviews": """
    CREATE TABLE stemma.reviews (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        book_id uuid NOT NULL,
        title text,
        content text NOT NULL,
        rating smallint,
        is_recommended boolean NOT NULL DEFAULT false,
        read_status stemma.read_status NOT NULL DEFAULT 'COMPLETED',
        status stemma.review_status NOT NULL DEFAULT 'PUBLISHED',
        like_count integer NOT NULL DEFAULT 0,
        bookmark_count integer NOT NULL DEFAULT 0,
        published_at timestamptz,
        deleted_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT reviews_pkey PRIMARY KEY (id),
        CONSTRAINT reviews_rating_check CHECK (rating IS NULL OR rating BETWEEN 1 AND 5),
        CONSTRAINT reviews_counts_check CHECK (like_count >= 0 AND bookmark_count >= 0),
        CONSTRAINT reviews_soft_delete_check CHECK ((status = 'DELETED') = (deleted_at IS NOT NULL)),
        CONSTRAINT reviews_published_check CHECK (status <> 'PUBLISHED' OR published_at IS NOT NULL),
        CONSTRAINT reviews_content_check CHECK (btrim(content) <> ''),
        CONSTRAINT reviews_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT reviews_book_id_fkey FOREIGN KEY (book_id) REFERENCES stemma.books (id) ON DELETE RESTRICT
    );
    CREATE INDEX reviews_status_published_at_idx ON stemma.reviews (status, published_at DESC, id DESC);
    CREATE INDEX reviews_user_id_created_at_idx ON stemma.reviews (user_id, created_at DESC);
    CREATE INDEX reviews_book_id_status_published_at_id_idx ON stemma.reviews (book_id, status, published_at DESC, id DESC);
    CREATE INDEX reviews_like_count_id_idx ON stemma.reviews (like_count DESC, id DESC) WHERE status = 'PUBLISHED';
    CREATE INDEX reviews_deleted_at_idx ON stemma.reviews (deleted_at) WHERE deleted_at IS NOT NULL
    """,
    "likes": """
    CREATE TABLE stemma.likes (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        review_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT likes_pkey PRIMARY KEY (id),
        CONSTRAINT likes_user_id_review_id_key UNIQUE (user_id, review_id),
        CONSTRAINT likes_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT likes_review_id_fkey FOREIGN KEY (review_id) REFERENCES stemma.reviews (id) ON DELETE CASCADE
    );
    CREATE INDEX likes_review_id_idx ON stemma.likes (review_id)
    """,
    "bookmarks": """
    CREATE TABLE stemma.bookmarks (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        review_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT bookmarks_pkey PRIMARY KEY (id),
        CONSTRAINT bookmarks_user_id_review_id_key UNIQUE (user_id, review_id),
        CONSTRAINT bookmarks_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT bookmarks_review_id_fkey FOREIGN KEY (review_id) REFERENCES stemma.reviews (id) ON DELETE CASCADE
    );
    CREATE INDEX bookmarks_review_id_idx ON stemma.bookmarks (review_id);
    CREATE INDEX bookmarks_user_id_created_at_idx ON stemma.bookmarks (user_id, created_at DESC)
    """,
    "past_places": """
    CREATE TABLE stemma.past_places (
        transaction_id bigint NOT NULL,
        previous_transaction_id bigint,
        number bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
        cluster_id bigint NOT NULL,
        review_id uuid,
        like_count integer,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT past_places_pkey PRIMARY KEY (transaction_id, number),
        CONSTRAINT past_places_review_check CHECK (review_id IS NOT NULL OR like_count IS NULL),
        CONSTRAINT past_places_review_id_fkey FOREIGN KEY (review_id) REFERENCES stemma.reviews (id) ON DELETE CASCADE
    );
    CREATE INDEX past_places_like_count_review_id_idx ON stemma.past_places (like_count DESC, review_id DESC) WHERE like_count IS NOT NULL;
    CREATE INDEX past_places_review_id_transaction_id_idx ON stemma.past_places (review_id, transaction_id)
    """,
}

_FUNCTIONS = (
    """
    CREATE FUNCTION stemma.stemma_reviews_publish() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.status = 'PUBLISHED' AND NEW.published_at IS NULL THEN NEW.published_at := now(); END IF;
      RETURN NEW;
    END $$
    """,
    # One UPDATE per review, however many rows of it a statement touched. Two statements on purpose: the first waits for the reviews in
    # the order of their ids, the second sees what was committed meanwhile. As one statement they deadlock.
    """
    CREATE FUNCTION stemma.stemma_count_reactions() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      counted text := TG_ARGV[0];
      sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
    BEGIN
      PERFORM 1 FROM stemma.reviews WHERE id IN (SELECT review_id FROM changed) ORDER BY id FOR NO KEY UPDATE;
      EXECUTE format(
        'UPDATE stemma.reviews SET %1$I = greatest(reviews.%1$I + $1 * found.number, 0)
           FROM (SELECT review_id, count(*)::integer AS number FROM changed GROUP BY review_id) AS found
          WHERE reviews.id = found.review_id', counted) USING sign;
      RETURN NULL;
    END $$
    """,
    # Two removals at once, of users who reacted to each other's reviews, would each hold what the other waits for. PostgreSQL removes the
    # reviews of a user before anything else of theirs in this pack: here the second waits for the first, and holds nothing that it needs.
    """
    CREATE FUNCTION stemma.stemma_remove_in_turn() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_advisory_xact_lock(hashtextextended('stemma.reviews removal', 0));
      RETURN NULL;
    END $$
    """,
    # Whoever moves a review has its row locked: the numbers of its moves are in their order.
    """
    CREATE FUNCTION stemma.stemma_keep_place() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      moved_by bigint := pg_current_xact_id()::text::bigint;
      here bigint := (SELECT system_identifier FROM pg_control_system());
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO stemma.past_places (transaction_id, cluster_id, review_id)
        SELECT moved_by, here, id FROM added WHERE status = 'PUBLISHED';
      ELSIF OLD.status = 'PUBLISHED' OR NEW.status = 'PUBLISHED' THEN
        INSERT INTO stemma.past_places (transaction_id, previous_transaction_id, cluster_id, review_id, like_count)
        SELECT moved_by, max(past_places.transaction_id), here, OLD.id, CASE WHEN OLD.status = 'PUBLISHED' THEN OLD.like_count END
          FROM stemma.past_places WHERE past_places.review_id = OLD.id AND past_places.cluster_id = here;
      END IF;
      RETURN NULL;
    END $$
    """,
)

_COUNTED = {"likes": "like_count", "bookmarks": "bookmark_count"}


def upgrade() -> None:
    for name, labels in _TYPES.items():
        op.execute(f"CREATE TYPE stemma.{name} AS ENUM {labels}")
    for statement in (*_TABLES.values(), *_FUNCTIONS):
        op.execute(statement)
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_set_updated_at BEFORE UPDATE ON stemma.{table} "
            "FOR EACH ROW EXECUTE FUNCTION stemma.stemma_set_updated_at()"
        )
    op.execute(
        "CREATE TRIGGER reviews_publish BEFORE INSERT OR UPDATE OF status, published_at ON stemma.reviews "
        "FOR EACH ROW EXECUTE FUNCTION stemma.stemma_reviews_publish()"
    )
    op.execute(
        "CREATE TRIGGER reviews_remove_in_turn BEFORE DELETE ON stemma.reviews "
        "FOR EACH STATEMENT EXECUTE FUNCTION stemma.stemma_remove_in_turn()"
    )
    op.execute(
        "CREATE TRIGGER reviews_keep_place_ins AFTER INSERT ON stemma.reviews REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION stemma.stemma_keep_place()"
    )
    op.execute(
        "CREATE TRIGGER reviews_keep_place_upd AFTER UPDATE OF like_count, status ON stemma.reviews FOR EACH ROW "
        "WHEN (old.like_count <> new.like_count OR old.status <> new.status) EXECUTE FUNCTION stemma.stemma_keep_place()"
    )
    for table, column in _COUNTED.items():
        for name, event, rows in (("ins", "INSERT", "NEW"), ("del", "DELETE", "OLD")):
            op.execute(
                f"CREATE TRIGGER {table}_count_{name} AFTER {event} ON stemma.{table} REFERENCING {rows} TABLE AS changed "
                f"FOR EACH STATEMENT EXECUTE FUNCTION stemma.stemma_count_reactions('{column}')"
            )


def downgrade() -> None:
    # No CASCADE: an object of somebody else that depends on these stops the downgrade instead of disappearing.
    op.execute("DROP TABLE " + ", ".join(f"stemma.{table}" for table in _TABLES))
    functions = ("count_reactions", "keep_place", "remove_in_turn", "reviews_publish")
    op.execute("DROP FUNCTION " + ", ".join(f"stemma.stemma_{name}()" for name in functions))
    op.execute("DROP TYPE " + ", ".join(f"stemma.{name}" for name in _TYPES))
