package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/exhume/exhume/schemas"
)

// What a report's directory holds: the report itself, and the results as CSV that
// can be submitted again as manifests. The last is for those that were skipped or
// cancelled.
const (
	reportFile   = "report.json"
	restoredFile = "restored.csv"
	failedFile   = "failed.csv"
	skippedFile  = "skipped.csv"
)

// SaveReport writes the report on a batch, named as in BatchRef, into a directory
// below dir that has the batch's id for a name; see WriteReport.
func SaveReport(ctx context.Context, from Batches, ref, dir string) (path string, b schemas.BatchReport, err error) {
	b, events, err := askBatch(ctx, from, ref)
	if err != nil {
		return "", b, err
	}
	if err := schemas.CheckName(b.ID); err != nil {
		return "", b, err // it must not lead anywhere else
	}
	path = filepath.Join(dir, b.ID)
	return path, b, WriteReport(ctx, path, b, events, from.Results(ctx, b.ID, schemas.ResultFilter{}))
}

// WriteReport writes the report about a batch into a directory of its own, which
// appears only when it is complete and durable, in place of an earlier report.
// What is no report is never replaced. The results are read once, and a batch of
// millions needs no memory.
func WriteReport(
	ctx context.Context, dir string, b schemas.BatchReport, events []schemas.BatchEvent, results iter.Seq2[schemas.Result, error],
) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("report on batch %s: %w", b.ID, err)
		}
	}()
	dir = filepath.Clean(dir)
	if err := checkReplaceable(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), reportTemp+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(temp)
		}
	}()
	if err := os.Chmod(temp, 0o750); err != nil {
		return err
	}
	if err := writeReportFiles(ctx, temp, b, events, results); err != nil {
		return err
	}
	if err := syncDirectory(temp); err != nil {
		return err
	}
	if err := placeReport(temp, dir); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(dir))
}

// reportTemp begins the names of directories in which a report is written, or
// from which an earlier one is removed.
const reportTemp = ".report-"

func writeReportFiles(
	ctx context.Context, dir string, b schemas.BatchReport, events []schemas.BatchEvent, results iter.Seq2[schemas.Result, error],
) (err error) {
	var files reportFiles
	defer func() { err = errors.Join(err, files.close()) }()
	table := func(name string) *resultsCSV { return newResultsCSV(files.create(dir, name)) }
	restored, failed, skipped := table(restoredFile), table(failedFile), table(skippedFile)
	report, err := newReport(ctx, b, events, results, func(r *schemas.Result) error {
		switch r.Outcome {
		case schemas.OutcomeRestored, schemas.OutcomeUnchanged:
			return restored.write(r)
		case schemas.OutcomeSkipped, schemas.OutcomeCancelled:
			return skipped.write(r)
		default:
			return failed.write(r)
		}
	})
	if err != nil {
		return err
	}
	enc := json.NewEncoder(files.create(dir, reportFile))
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := errors.Join(enc.Encode(report), restored.flush(), failed.flush(), skipped.flush()); err != nil {
		return err
	}
	return files.sync()
}

// reportFiles are the files of a report that are being written. The first error
// stays, for sync.
type reportFiles struct {
	files   []*os.File
	buffers []*bufio.Writer
	err     error
}

// create makes a file and gives a buffer for it.
func (f *reportFiles) create(dir, name string) io.Writer {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		f.err = errors.Join(f.err, err)
		return io.Discard
	}
	f.files = append(f.files, file)
	w := bufio.NewWriterSize(file, 64<<10)
	f.buffers = append(f.buffers, w)
	return w
}

// sync makes what was written durable.
func (f *reportFiles) sync() error {
	for i, file := range f.files {
		f.err = errors.Join(f.err, f.buffers[i].Flush(), file.Sync())
	}
	return f.err
}

func (f *reportFiles) close() error {
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// placeReport gives a report that is complete its name.
func placeReport(temp, dir string) error {
	for {
		err := os.Rename(temp, dir)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := checkReplaceable(dir); err != nil {
			return err
		}
		old, err := os.MkdirTemp(filepath.Dir(dir), reportTemp+filepath.Base(dir)+"-*")
		if err != nil {
			return err
		}
		// Somebody else may replace it at the same time.
		if err := os.Rename(dir, filepath.Join(old, "replaced")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, os.RemoveAll(old))
		}
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
}

// checkReplaceable refuses a directory that holds anything but a report.
func checkReplaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case reportFile, restoredFile, failedFile, skippedFile:
		default:
			return fmt.Errorf("%s holds %s, which is of no report; choose another directory", dir, e.Name())
		}
	}
	return nil
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
