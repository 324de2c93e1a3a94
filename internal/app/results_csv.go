package app

import (
	"encoding/csv"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/exhume/exhume/schemas"
)

// resultColumns are the columns of results as CSV. The first three make it a
// manifest: what the others say becomes labels when it is submitted.
var resultColumns = []string{
	"tombstone", "output", "actor", "index", "outcome", "code", "attempts", "size", "sha256", "duration_ms", "finished_at", "detail",
}

// resultsCSV writes results as CSV with a header.
type resultsCSV struct {
	w   *csv.Writer
	row []string
}

func newResultsCSV(w io.Writer) *resultsCSV {
	c := &resultsCSV{w: csv.NewWriter(w)}
	_ = c.w.Write(resultColumns) // an error stays, see flush
	return c
}

func (c *resultsCSV) write(r *schemas.Result) error {
	c.row = append(c.row[:0],
		r.Tombstone, r.Output, r.Actor, strconv.FormatInt(r.Index, 10), string(r.Outcome), string(r.Code),
		strconv.Itoa(r.Attempts), strconv.FormatInt(r.Size, 10), r.SHA256,
		strconv.FormatFloat(r.Durations.Total, 'f', 3, 64), r.FinishedAt.UTC().Format(time.RFC3339Nano), r.Detail,
	)
	return c.w.Write(c.row)
}

// flush writes what is buffered and gives the first error of all.
func (c *resultsCSV) flush() error {
	c.w.Flush()
	return c.w.Error()
}

// ResultsCSV writes results as CSV that can be submitted again as a manifest.
func ResultsCSV(w io.Writer, results iter.Seq2[schemas.Result, error]) error {
	c := newResultsCSV(w)
	for r, err := range results {
		if err != nil {
			return err
		}
		if err := c.write(&r); err != nil {
			return err
		}
	}
	return c.flush()
}
