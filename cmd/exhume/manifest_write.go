package main

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// manifestRow is a row as batch-restore reads it.
type manifestRow struct {
	Tombstone string `json:"tombstone"`
	Output    string `json:"output"`
	Actor     string `json:"actor,omitempty"`
}

// deliverRows writes a manifest to the file, or to stdout where none is named.
// Without a format the file's name decides.
func deliverRows(stdout io.Writer, file, format string, rows iter.Seq2[manifestRow, error]) error {
	name, compress := strings.CutSuffix(strings.ToLower(file), ".gz")
	if format == "" {
		format = "jsonl"
		if ext := filepath.Ext(name); ext == ".csv" || ext == ".json" {
			format = ext[1:]
		}
	}
	write := func(w io.Writer) error {
		if !compress {
			return writeRows(w, format, rows)
		}
		z := gzip.NewWriter(w)
		return errors.Join(writeRows(z, format, rows), z.Close())
	}
	if file == "" {
		return write(stdout)
	}
	if err := writeWhole(file, write); err != nil {
		return fmt.Errorf("--to %s: %w", file, err)
	}
	return nil
}

// writeRows writes a manifest.
func writeRows(to io.Writer, format string, rows iter.Seq2[manifestRow, error]) error {
	w := bufio.NewWriterSize(to, 1<<16)
	var err error
	switch format {
	case "json":
		err = jsonList(&cli{out: w}, rows)
	case "csv":
		err = csvRows(w, rows)
	default:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for row, rerr := range rows {
			if err = rerr; err == nil {
				err = enc.Encode(row)
			}
			if err != nil {
				break
			}
		}
	}
	return errors.Join(err, w.Flush())
}

func csvRows(to io.Writer, rows iter.Seq2[manifestRow, error]) error {
	w := csv.NewWriter(to)
	if err := w.Write([]string{"tombstone", "output", "actor"}); err != nil {
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		if err := w.Write([]string{row.Tombstone, row.Output, row.Actor}); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// writeWhole writes a file that appears only when it is complete. What is there
// and no file, such as a pipe, is written to as it is.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	if st, serr := os.Stat(path); serr == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".manifest-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
