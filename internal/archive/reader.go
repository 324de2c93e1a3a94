package archive

import (
	"context"
	"errors"
	"io"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Reader reads one archive. It never changes the archive and creates none. It is
// safe for concurrent use; Close it at the end.
type Reader struct{ source source }

// source is an archive of one kind, opened for reading. Its errors are those of
// the database unless they have a code already; fault gives them one.
type source interface {
	faults
	lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error)
	// blobs returns an error of yield as it is.
	blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error
	// blob streams the stored bytes of one artifact; what it and its stream
	// return has gone through fault.
	blob(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error)
	questions
	ping(ctx context.Context) error
	// name is the archive's file or URL, without secrets.
	name() string
	close() error
}

// pingSQL reads each of the tables that restoring needs, at little cost: somebody may
// have locked one of them alone.
const pingSQL = `SELECT (SELECT count(*) FROM (SELECT 1 FROM item LIMIT 1) AS i) + (SELECT count(*) FROM (SELECT 1 FROM artifact LIMIT 1) AS a)`

// faults gives an error met while doing something its code and one line of text.
type faults interface {
	fault(ctx context.Context, doing string, err error) error
}

// OpenReader opens the archive that the URL or file name stands for.
//
// The code of the error is CodeArchiveDown if the file is missing or cannot be
// opened or the server cannot be reached, CodeArchiveCorrupt if it is no archive;
// a URL that cannot be used is an error without a code.
//
// A SQLite archive in WAL mode makes SQLite keep two files beside it, which Close
// removes if they were not there; where the directory cannot be written to, such
// an archive is taken as immutable, provided that there are no changes waiting in
// those files. Nobody may write to it then.
func OpenReader(ctx context.Context, archiveURL string) (*Reader, error) {
	loc, err := ParseURL(archiveURL)
	if err != nil {
		return nil, err
	}
	var s source
	switch loc.Backend {
	case Postgres:
		s, err = openPostgres(ctx, loc.URL)
	case MariaDB:
		s, err = openMariaDB(ctx, loc.URL)
	default:
		s, err = openSQLiteReader(ctx, loc.Path)
	}
	if err != nil {
		return nil, err
	}
	return &Reader{s}, nil
}

// Lookup finds the artifacts behind tombstones with one statement. The result
// is keyed by tombstone as it was asked for, and lacks those that the archive
// does not have. A SQLite archive compares tombstones letter by letter; servers
// find a UUID in upper case, too, and nothing that is no UUID.
func (r *Reader) Lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	found, err := r.source.lookup(ctx, tombstones)
	if err != nil {
		return nil, r.source.fault(ctx, "looking tombstones up", err)
	}
	return found, nil
}

// Blobs reads the stored bytes of artifacts with one statement. For each id
// given whose artifact has any it calls yield, in no particular order. The bytes
// belong to the driver and may be used during the call only. An error of yield
// ends reading and is returned as it is.
//
// All bytes of one artifact are in memory during its call; the caller chooses
// the group so that this is bearable, and uses Open for large artifacts.
func (r *Reader) Blobs(ctx context.Context, artifacts []string, yield func(id string, blob []byte) error) error {
	var stopped error
	err := r.source.blobs(ctx, artifacts, func(id string, blob []byte) error {
		stopped = yield(id, blob)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return r.source.fault(ctx, "reading blobs", err)
}

// Ping says whether the archive can be read, at little cost. Where the file of a
// SQLite archive has vanished, it notices; where another one has taken its place,
// that one is read from then on, at the latest a minute later.
//
// It does not wait for queries that are under way, however many there are. An archive
// that says nothing until the deadline of ctx is away: CodeArchiveDown.
func (r *Reader) Ping(ctx context.Context) error {
	err := r.source.fault(ctx, "probing it", r.source.ping(ctx))
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(schemas.CodeArchiveDown, "archive %q: it does not answer in time", r.source.name())
	}
	return err
}

// Close ends reading. Streams from Open are to be closed before.
func (r *Reader) Close() error {
	return r.source.fault(context.Background(), "closing it", r.source.close())
}
