// Package evidence is the append-only audit log: one JSON object a line, each
// chained to the line before it by that line's SHA-256.
//
// The log continues the predecessor's: same file name, same form of line, and
// lines that exhume did not write are chained over and otherwise left alone.
package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/schemas"
)

// FileName is the name of the log in its directory.
const FileName = "archive_ops.jsonl"

const lockName = "archive_ops.lock"

// Log appends to one evidence log. Several goroutines and several processes may
// append to the same log at once; writers that do not take the lock file (the
// predecessor) may only append while exhume does not.
type Log struct {
	path string
	lock *flock.Flock
	now  func() time.Time

	// turn holds a token while a goroutine uses the fields below.
	turn chan struct{}
	file *os.File // nil when it must be opened
	// pos is the end of the file when this Log last left it; known is false
	// when that has to be read from the file.
	pos   schemas.EvidencePosition
	known bool
	buf   []byte
}

// Open opens the log in dir for appending and makes both if they are missing
// (0755, 0644).
func Open(dir string) (*Log, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the evidence directory: %w", err)
	}
	l := &Log{
		path: filepath.Join(dir, FileName),
		lock: flock.New(filepath.Join(dir, lockName), flock.SetPermissions(0o644)),
		now:  time.Now,
		turn: make(chan struct{}, 1),
	}
	return l, l.open()
}

// Path is the log file's name.
func (l *Log) Path() string { return l.path }

// Close waits for an Append that is under way and closes the file.
func (l *Log) Close() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	return l.forget()
}

// Append writes the records as lines at the end of the log, syncs them to disk
// and gives the position after them. It fills in Prev, Seq and TS in the lines,
// not in the slice. Either all records are in the log when it returns, or it
// returns an error and none is, unless the file could not be cut back either.
// Without records it only gives the position.
//
// It waits for other writers until ctx is done; after that point it completes.
//
// Bytes after the last newline are what a crash left of an append that never
// reported success. If they are a whole JSON value all the same, the newline is
// added; otherwise they say nothing and are cut off.
func (l *Log) Append(ctx context.Context, records []schemas.Record) (schemas.EvidencePosition, error) {
	if err := l.acquire(ctx); err != nil {
		return schemas.EvidencePosition{}, err
	}
	defer l.release()
	if err := l.refresh(); err != nil {
		return schemas.EvidencePosition{}, err
	}
	if len(records) == 0 {
		return l.pos, nil
	}
	if l.pos.Seq > math.MaxInt64-int64(len(records)) {
		return schemas.EvidencePosition{}, fmt.Errorf("evidence log %s: its last record has the number %d, after which there is none: it was changed", l.path, l.pos.Seq)
	}
	after := l.encode(records)
	if err := l.write(); err != nil {
		return schemas.EvidencePosition{}, err
	}
	l.pos = after
	return after, nil
}

// acquire takes this process's turn, then the lock between processes.
func (l *Log) acquire(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait to append to %s: %w", l.path, ctx.Err())
	}
	if _, err := l.lock.TryLockContext(ctx, 2*time.Millisecond); err != nil {
		<-l.turn
		return fmt.Errorf("wait for %s, which another process may hold: %w", l.lock.Path(), err)
	}
	return nil
}

func (l *Log) release() {
	_ = l.lock.Unlock() // fails only on a file that is closed, and then it is unlocked
	<-l.turn
}

// open opens the file that the path names now.
func (l *Log) open() error {
	const flags = os.O_RDWR | os.O_APPEND
	f, err := os.OpenFile(l.path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(l.path, flags|os.O_CREATE, 0o644); err == nil {
			err = syncDir(filepath.Dir(l.path))
		}
	}
	if err != nil {
		return fmt.Errorf("open the evidence log: %w (make its directory writable, or choose another with --evidence-dir)", err)
	}
	l.file = f
	return nil
}

// syncDir makes a file's name as durable as its content.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// forget closes the file; the next append opens and reads it anew.
func (l *Log) forget() error {
	f := l.file
	if f == nil {
		return nil
	}
	l.file, l.known, l.pos = nil, false, schemas.EvidencePosition{}
	return f.Close()
}

// encode fills buf with the lines and gives the position after them.
func (l *Log) encode(records []schemas.Record) schemas.EvidencePosition {
	pos := l.pos
	ts := l.now().UTC().Format("2006-01-02T15:04:05Z")
	l.buf = l.buf[:0]
	for i := range records {
		r := records[i]
		r.Prev, r.Seq, r.TS = pos.Prev, pos.Seq+1, ts
		start := len(l.buf)
		l.buf = appendRecord(l.buf, &r)
		sum := sha256.Sum256(l.buf[start:])
		pos.Prev, pos.Seq = hex.EncodeToString(sum[:]), r.Seq
		l.buf = append(l.buf, '\n')
	}
	pos.Offset += int64(len(l.buf))
	return pos
}

// write puts buf at the end of the file. When that fails, the file is cut back
// to where it was, so that no line of a group that was not recorded stays.
func (l *Log) write() error {
	_, err := l.file.Write(l.buf)
	if err == nil {
		failpoint.Here("evidence.appended")
		err = l.file.Sync()
	}
	if err != nil {
		return l.cutBack(err)
	}
	failpoint.Here("evidence.synced")
	const keep = 8 << 20
	if cap(l.buf) > keep {
		l.buf = nil
	}
	return nil
}

func (l *Log) cutBack(cause error) error {
	err := l.file.Truncate(l.pos.Offset)
	if err != nil {
		err = fmt.Errorf("evidence log %s: write: %w; and it could not be cut back to byte %d: %w; repair the device", l.path, cause, l.pos.Offset, err)
	} else {
		err = fmt.Errorf("evidence log %s: write: %w; nothing was recorded: free space there or repair the device, then try again", l.path, cause)
	}
	_ = l.forget() // what the system still knows of this file is in doubt
	return err
}
