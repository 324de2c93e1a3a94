package producer

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// readCSV visits the rows of CSV with a header. A row with broken quotes is a
// bad row; reading goes on with the line after it.
func readCSV(t text, visit func(*record) error) error {
	limit := &rowLimit{r: t, left: maxRow}
	r := csv.NewReader(limit)
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	names, err := readHeader(t, r)
	if err != nil {
		return err
	}
	line := int64(1) // the last one that a row began on
	for {
		limit.next()
		start := r.InputOffset()
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		var rec record
		broken, ok := errors.AsType[*csv.ParseError](err)
		switch {
		case ok:
			rec.line = int64(broken.StartLine)
			rec.bad = errors.New(quotesFlaw(broken))
		case errors.Is(err, errRowTooLong):
			return t.flaw(line+1, "%v; is a quote not closed?", err)
		case err != nil:
			return t.readFlaw(line+1, err)
		default:
			first, _ := r.FieldPos(0)
			rec.line = int64(first)
			rec.bad = readCells(names, cells, &rec)
		}
		if r.InputOffset()-start > maxRow {
			return t.flaw(rec.line, "%v; is a quote not closed?", errRowTooLong)
		}
		line = rec.line
		if err := visit(&rec); err != nil {
			return err
		}
	}
}

// readHeader reads the names of the columns; one without a name is "".
func readHeader(t text, r *csv.Reader) ([]string, error) {
	cells, err := r.Read()
	if err == io.EOF {
		return nil, nil // no header, no rows
	}
	if broken, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, t.flaw(int64(broken.StartLine), "%s", quotesFlaw(broken))
	}
	if err != nil {
		return nil, t.readFlaw(1, err)
	}
	line, _ := r.FieldPos(0)
	names := make([]string, len(cells))
	seen := make(map[string]bool)
	for i, cell := range cells {
		name := strings.TrimSpace(cell)
		if !utf8.ValidString(name) {
			return nil, t.flaw(int64(line), "the header is not valid UTF-8")
		}
		if seen[name] && name != "" {
			return nil, t.flaw(int64(line), "column %s stands twice in the header", quote(name))
		}
		seen[name], names[i] = true, name
	}
	for _, name := range []string{"tombstone", "output"} {
		if !seen[name] {
			return nil, t.flaw(int64(line), "the header has no column %q: %s", name, quote(strings.Join(names, ",")))
		}
	}
	return names, nil
}

// quotesFlaw says where in a row the quotes are wrong.
func quotesFlaw(e *csv.ParseError) string {
	at := fmt.Sprintf("column %d", e.Column)
	if e.Line != e.StartLine {
		at = fmt.Sprintf("line %d, %s", e.Line, at)
	}
	return at + ": " + e.Err.Error()
}

// readCells fills rec from a row. Cells missing at its end are empty.
func readCells(names, cells []string, rec *record) error {
	for i, cell := range cells {
		if !utf8.ValidString(cell) {
			return errors.New("the row is not valid UTF-8")
		}
		name := ""
		if i < len(names) {
			name = names[i]
		}
		switch name {
		case "tombstone":
			rec.tombstone = cell
		case "output":
			rec.output = cell
		case "actor":
			rec.actor = cell
		case "":
			if cell != "" {
				return fmt.Errorf("cell %d %s has no column in the header", i+1, quote(cell))
			}
		default:
			rec.label(name, cell)
		}
	}
	return nil
}
