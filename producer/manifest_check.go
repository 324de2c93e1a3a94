package producer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"github.com/exhume/exhume/schemas"
)

// Check is what one reading of a whole manifest found. Valid + Rejected == Rows.
type Check struct {
	// Format is "json", "jsonl" or "csv", with ".gz" after it when compressed.
	Format string
	// Rows counts the rows from ManifestOptions.From on.
	Rows, Valid, Rejected int64
	// SHA256 is the digest, in lower-case hex, of the manifest's bytes as they
	// are stored: of the compressed bytes where it is compressed.
	SHA256 string
}

// progressRows is how many rows are read between two signs of progress.
const progressRows = 10_000

// Check reads the manifest once to its end. Every row that cannot be restored
// goes to report, which may be nil: first, in order of lines, the rows that are
// bad by themselves; then, in order of outputs, the rows whose output collides
// with that of an earlier row. Outputs collide when they are the same, or the
// same but for letter case or Unicode form, or when one lies beneath the other.
// Each row is reported once.
//
// The error is a Reject when the manifest cannot be read on from some line
// (broken JSON, a row beyond 1 MiB) or holds no row at all; the counts are then
// those up to there.
func (m *Manifest) Check(ctx context.Context, report func(Reject)) (Check, error) {
	m.checked, m.rejected, m.kept = false, rowSet{}, kept{}
	info, err := m.file.Stat()
	if err != nil {
		return Check{}, fmt.Errorf("check manifest: %w", err)
	}
	m.size = info.Size()

	outputs := newCollider(ctx, m.opts.TempDir)
	defer outputs.close()

	var c Check
	reject := func(at place, reason string) {
		c.Rejected++
		m.rejected.add(at.row)
		if report != nil {
			report(at.reject(m.title(), reason))
		}
	}
	p, err := m.scan(ctx, func(rec *record) error {
		if c.Rows++; c.Rows%progressRows == 0 && m.opts.Progress != nil {
			m.opts.Progress(c.Rows)
		}
		req, err := m.request(rec)
		if err != nil {
			reject(rec.place, err.Error())
			return nil
		}
		m.kept.add(rec.row, req)
		return outputs.add(rec.place, req.Output)
	})
	if err == nil {
		err = outputs.find(reject)
	}
	c.Valid = c.Rows - c.Rejected
	c.Format = p.format
	if err != nil {
		return c, err
	}
	c.SHA256 = p.sha256
	m.result, m.checked = c, true
	return c, nil
}

var errStop = errors.New("stop")

// Items yields the rows that Check found valid, in the manifest's order, with
// the indexes 0, 1, 2 … and the same ones at each call. Batch is left empty;
// Output is relative, slash-separated and clean.
//
// An error ends the sequence. It is ErrManifestChanged when the manifest's bytes
// are not those that Check saw; since only a reading to the end can tell, what
// was yielded before is not to be relied on until the sequence has ended.
func (m *Manifest) Items(ctx context.Context) iter.Seq2[schemas.Request, error] {
	return func(yield func(schemas.Request, error) bool) {
		var index int64
		err := m.again(ctx, func(req schemas.Request) error {
			req.Index = index
			index++
			if !yield(req, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(schemas.Request{}, err)
		}
	}
}

// again goes through the valid rows a second time. Where it has to read them, it
// makes sure that they are the ones that were checked.
func (m *Manifest) again(ctx context.Context, visit func(schemas.Request) error) error {
	if !m.checked {
		return fmt.Errorf("manifest %s: it was not checked successfully before reading its items", m.title())
	}
	if m.kept.all() {
		return m.kept.visit(ctx, &m.rejected, visit)
	}
	changed := fmt.Errorf("manifest %s: %w", m.title(), ErrManifestChanged)
	info, err := m.file.Stat()
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if info.Size() != m.size {
		return changed
	}
	p, err := m.scan(ctx, func(rec *record) error {
		if m.rejected.has(rec.row) {
			return nil
		}
		req, err := m.request(rec)
		if err != nil {
			return changed
		}
		return visit(req)
	})
	if _, unreadable := errors.AsType[Reject](err); unreadable || err == nil && p.sha256 != m.result.SHA256 {
		return changed
	}
	return err
}

// scan reads the manifest from its begin to its end and visits every row that
// is not left out. The record belongs to the reader again after each visit.
func (m *Manifest) scan(ctx context.Context, visit func(*record) error) (pass, error) {
	raw := newRawReader(ctx, m.file, m.size)
	var row, line int64
	format, err := readRows(raw, m.title(), func(rec *record) error {
		row++
		rec.row, rec.shared = row, rec.line == line
		line = rec.line
		if row < m.opts.From {
			return nil
		}
		return visit(rec)
	})
	p := pass{format: format}
	if raw.err != nil {
		// Parsers take a failed read for broken input; the cause is what counts.
		return p, fmt.Errorf("read manifest %s: %w", m.title(), raw.err)
	}
	if err != nil {
		return p, err
	}
	if row == 0 {
		return p, Reject{m.title(), 1, "the manifest has no rows"}
	}
	if row < m.opts.From {
		return p, Reject{m.title(), line, fmt.Sprintf("the manifest has %d rows, none is left from row %d on", row, m.opts.From)}
	}
	p.sha256 = hex.EncodeToString(raw.hash.Sum(nil))
	return p, nil
}

// pass is what one reading of a manifest found out about it as a whole.
type pass struct {
	format string
	sha256 string
}
