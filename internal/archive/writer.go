package archive

import "context"

// Writer changes one archive: it stores items and records restores. What it has
// reported done is committed. It is safe for concurrent use, one call at a time
// having its way; Close it at the end.
type Writer struct{ sink sink }

// sink is an archive of one kind, opened for writing. Its errors are as those of
// a source.
type sink interface {
	faults
	// contents tells what the archive has of the contents with these SHA-256.
	contents(ctx context.Context, sums []string) (contents, error)
	// store runs f in a transaction, with no other Writer storing meanwhile.
	store(ctx context.Context, f func(storing) error) error
	// admits says how many stored bytes of one artifact the archive takes;
	// remedy says how it would take more, if it can.
	admits() (size int64, remedy string)
	restored(ctx context.Context, events []RestoreEvent) error
	close() error
}

// OpenWriter opens an archive that exists, for writing. Its errors are those of
// OpenReader.
func OpenWriter(ctx context.Context, archiveURL string) (*Writer, error) {
	return openWriter(ctx, archiveURL, false)
}

// CreateWriter is OpenWriter for an archive that may not exist yet: it creates
// the tables and indexes that lack, and for SQLite the file with its parent
// directories, in WAL mode. A SQLite file of something else is refused; so is a
// server's database that has some, but not all, tables of these names already.
// The database itself must be there, with the right to create tables.
func CreateWriter(ctx context.Context, archiveURL string) (*Writer, error) {
	return openWriter(ctx, archiveURL, true)
}

func openWriter(ctx context.Context, archiveURL string, create bool) (*Writer, error) {
	loc, err := ParseURL(archiveURL)
	if err != nil {
		return nil, err
	}
	var s sink
	switch {
	case loc.Backend == Postgres && create:
		s, err = createPostgres(ctx, loc.URL)
	case loc.Backend == Postgres:
		s, err = openPostgres(ctx, loc.URL)
	case loc.Backend == MariaDB && create:
		s, err = createMariaDB(ctx, loc.URL)
	case loc.Backend == MariaDB:
		s, err = openMariaDB(ctx, loc.URL)
	case create:
		s, err = createSQLite(ctx, loc.Path)
	default:
		s, err = openSQLiteWriter(ctx, loc.Path)
	}
	if err != nil {
		return nil, err
	}
	return &Writer{s}, nil
}

// Close ends writing.
func (w *Writer) Close() error {
	return w.sink.fault(context.Background(), "closing it", w.sink.close())
}
