package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// What PostgreSQL and MariaDB have in common.

// connectTimeout bounds how long opening a connection may take, unless the URL
// says otherwise.
const connectTimeout = 10 * time.Second

// canonical is a UUID as archives spell it, or says that id is none. Only the
// common form with hyphens is one.
func canonical(id string) (string, bool) {
	if len(id) != 36 {
		return "", false
	}
	u, err := uuid.Parse(id)
	return u.String(), err == nil
}

// spellings are ids as they were asked for, by how the archive spells them.
// What cannot be an id is left out.
type spellings map[string][]string

func spell(ids []string) spellings {
	s := make(spellings, len(ids))
	for _, id := range ids {
		if c, ok := canonical(id); ok {
			s[c] = append(s[c], id)
		}
	}
	return s
}

func (s spellings) list() []string {
	all := make([]string, 0, len(s))
	for c := range s {
		all = append(all, c)
	}
	return all
}

// scanArtifacts reads rows of what a look-up selects.
func (s spellings) scanArtifacts(rows rows) (map[string]schemas.Artifact, error) {
	defer func() { _ = rows.Close() }()
	found := make(map[string]schemas.Artifact, len(s))
	for rows.Next() {
		var a schemas.Artifact
		if err := rows.Scan(&a.Tombstone, &a.Item, &a.Repo, &a.Path, &a.ID, &a.SHA256, &a.Size, &a.Codec, &a.Stored, &a.URL); err != nil {
			return nil, err
		}
		c, _ := canonical(a.Tombstone)
		for _, asked := range s[c] {
			found[asked] = a
		}
	}
	return found, rows.Err()
}

// yield hands a blob on under the ids that were asked for.
func (s spellings) yield(id string, blob []byte, yield func(id string, blob []byte) error) error {
	c, _ := canonical(id)
	for _, asked := range s[c] {
		if err := yield(asked, blob); err != nil {
			return err
		}
	}
	return nil
}

// sliced reads the stored bytes of one artifact piece by piece.
type sliced struct {
	a schemas.Artifact
	// piece is how many bytes are asked for at a time.
	piece int64
	// fetch gives n bytes at offset (from 0); none when the artifact is not any
	// more as it was looked up.
	fetch  func(offset, n int64) ([]byte, error)
	rest   []byte
	offset int64
}

// Read implements io.Reader.
func (s *sliced) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.offset >= s.a.Stored {
			return 0, io.EOF
		}
		var err error
		if s.rest, err = s.fetch(s.offset, min(s.piece, s.a.Stored-s.offset)); err != nil {
			return 0, err
		}
		if len(s.rest) == 0 {
			return 0, fault.New(schemas.CodeArchiveBusy, "artifact %s: it was stored anew since it was looked up", s.a.ID)
		}
		s.offset += int64(len(s.rest))
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (s *sliced) Close() error {
	s.rest = nil
	return nil
}

// serverFault gives an error met at the archive at url, which must not hold
// secrets, its code and one line of text. An error of the driver is not wrapped,
// because drivers report timeouts of their own as errors of a context, which here
// would mean that the caller had given up.
func serverFault(ctx context.Context, url, doing string, err error, classify func(error) (code schemas.Code, hint string)) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	code, hint := classify(err)
	return fault.New(code, "archive %q: %s: %s%s", url, doing, oneLine(err), hint)
}

// isNetwork recognises the errors of a connection that is lost or cannot be made.
func isNetwork(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// noTables is the error for a database without an archive's tables.
func noTables(url string) error {
	return fault.New(schemas.CodeArchiveCorrupt, "archive %q: it has no tables item and artifact; is this the right database?", url)
}

// otherTables is the error for a database in which no archive can be created.
func otherTables(url string) error {
	return fault.New(schemas.CodeArchiveCorrupt,
		"archive %q: it has some tables that an archive has, but not item and artifact; use a database of its own", url)
}

// tables are those of an archive; the first two make one.
var tables = []string{"item", "artifact", "event", "tag", "referent"}

// deleteAfter is the time in an item's metadata, if there is one.
func (n NewItem) deleteAfter() (*time.Time, error) {
	text := n.Metadata["delete_after"]
	if text == "" {
		return nil, nil //nolint:nilnil // SQL NULL
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			t = t.UTC()
			return &t, nil
		}
	}
	return nil, fmt.Errorf("metadata delete_after=%q: want a time like 2027-03-01 or 2027-03-01T00:00:00Z", text)
}
