package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// restoredAs is the result of an item that was restored with this content.
func restoredAs(i int, output, content string) schemas.Result {
	r := resultOf(i)
	r.Output, r.Size, r.SHA256 = output, int64(len(content)), digest(content)
	return r
}

// verified collects what Verify gives, by mark and output.
func verified(items iter.Seq2[Verified, error]) (marks []string, n VerifyCounts, err error) {
	for v, err := range items {
		if err != nil {
			return marks, n, err
		}
		n.Add(v)
		marks = append(marks, v.Verdict.Mark()+" "+v.Output)
	}
	return marks, n, nil
}

func TestVerifyTree(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	var list []schemas.Result
	put := func(output, content string) {
		t.Helper()
		path := filepath.Join(root, output)
		must(t, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)))
		list = append(list, restoredAs(len(list), output, content))
	}
	for _, output := range []string{"same", "changed", "short", "gone", "a/gone", "swapped", "dir"} {
		put(output, "hello")
	}
	put("empty", "")
	put("led/out", "hello")
	list[0].Outcome = schemas.OutcomeUnchanged
	list = append(list, failedOf(len(list), schemas.CodeInternal, "failed"))
	outside := filepath.Join(top, "outside")
	must(t, errors.Join(
		os.WriteFile(filepath.Join(root, "changed"), []byte("hellO"), 0o644), os.Truncate(filepath.Join(root, "short"), 4),
		os.Remove(filepath.Join(root, "gone")), os.RemoveAll(filepath.Join(root, "a")),
		os.Remove(filepath.Join(root, "swapped")), os.Symlink("same", filepath.Join(root, "swapped")),
		os.Remove(filepath.Join(root, "dir")), os.Mkdir(filepath.Join(root, "dir"), 0o755),
		os.Rename(filepath.Join(root, "led"), outside), os.Symlink("../outside", filepath.Join(root, "led")),
	))
	got, n, err := verified(Verify(t.Context(), &Config{}, root, sequence(list)))
	must(t, err)
	want := []string{"= same", "* changed", "* short", "- gone", "- a/gone", "* swapped", "* dir", "= empty", "! led/out"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if want := (VerifyCounts{Checked: 9, Match: 2, Differs: 4, Missing: 2, Errors: 1, Bytes: 10}); n != want {
		t.Errorf("%+v, want %+v", n, want)
	}

	_, _, err = verified(Verify(t.Context(), &Config{}, filepath.Join(top, "none"), sequence(list)))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--root") {
		t.Errorf("without a root: %v", err)
	}
}

func TestVerifyBucket(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	bucket := srv.Bucket(t)
	cfg := &Config{}
	cfg.S3.Endpoint, cfg.S3.AccessKey, cfg.S3.SecretKey = srv.Endpoint(), s3test.AccessKey, s3test.SecretKey
	var list []schemas.Result
	put := func(output, content, claimed string) {
		t.Helper()
		_, err := srv.Client().PutObject(t.Context(), bucket, "pre/"+output, strings.NewReader(content), int64(len(content)),
			minio.PutObjectOptions{UserMetadata: map[string]string{"sha256": digest(claimed)}})
		must(t, err)
		list = append(list, restoredAs(len(list), output, claimed))
	}
	put("same", "hello", "hello")
	put("changed", "hellO", "hello")
	put("short", "hell", "hello")
	large := string(bytes.Repeat([]byte("exhume"), 1<<18))
	put("a/large", large, large)
	list = append(list, restoredAs(len(list), "gone", "hello"))
	root := "s3://" + bucket + "/pre"
	got, n, err := verified(Verify(t.Context(), cfg, root, sequence(list)))
	must(t, err)
	if diff := cmp.Diff([]string{"= same", "* changed", "* short", "= a/large", "- gone"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if want := int64(len(large)) + 10; n.Bytes != want {
		t.Errorf("%d bytes, want %d", n.Bytes, want)
	}

	if _, _, err := verified(Verify(t.Context(), cfg, "s3://no-such-bucket", sequence(list))); !fault.Is(err, schemas.CodeDestinationMissing) {
		t.Errorf("without a bucket: %v", err)
	}
	// A server that goes away says nothing about the items.
	results := func(yield func(schemas.Result, error) bool) {
		for i := range 1000 {
			if i == 100 {
				srv.Kill()
			}
			r := list[0]
			r.Index = int64(i)
			if !yield(r, nil) {
				return
			}
		}
	}
	if _, n, err := verified(Verify(t.Context(), cfg, root, results)); fault.CodeOf(err).Class() != schemas.ClassBackendDown || n.Errors > 0 {
		t.Errorf("with the server away: %+v, %v", n, err)
	}
}

// However long one takes, items come in the order of the results, few are under
// way, and whoever has seen enough stops it all.
func TestVerifyOrder(t *testing.T) {
	t.Parallel()
	const n = 2 * readAhead
	fed, later := 0, make(chan struct{})
	results := func(yield func(schemas.Result, error) bool) {
		for fed = 0; fed < n; fed++ {
			if !yield(restoredAs(fed, fmt.Sprint(fed), "hello"), nil) {
				return
			}
		}
	}
	d := readable{reads: 4, read: func(_ context.Context, output string, size int64) (destination.Content, error) {
		switch output {
		case "0":
			<-later // until all that may be read ahead are
		case fmt.Sprint(readAhead - 1):
			close(later)
		}
		return destination.Content{Size: size, SHA256: digest("hello")}, nil
	}}
	next := 0
	d.verify(t.Context(), results, func(v Verified, err error) bool {
		if err != nil || v.Index != int64(next) || v.Verdict != VerdictMatch {
			t.Fatalf("item %d: %+v, %v", next, v, err)
		}
		next++
		return next < 10
	})
	if next != 10 || fed == n {
		t.Errorf("%d items were given, %d read", next, fed)
	}
}

// What ends the results is told.
func TestVerifyResultsEnd(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("hello"), 0o644))
	gone := errors.New("the ledger is gone")
	results := func(yield func(schemas.Result, error) bool) {
		_ = yield(restoredAs(0, "f", "hello"), nil) && yield(schemas.Result{}, gone)
	}
	if marks, _, err := verified(Verify(t.Context(), &Config{}, root, results)); !errors.Is(err, gone) || len(marks) != 1 {
		t.Errorf("%v, %v", marks, err)
	}
}

// Whoever was interrupted is told so, even if nothing was under way.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("hello"), 0o644))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	results := func(yield func(schemas.Result, error) bool) {
		yield(restoredAs(0, "f", "hello"), nil)
		<-ctx.Done()
	}
	var last error
	for _, err := range Verify(ctx, &Config{}, root, results) {
		stop()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("%v", last)
	}
}

// BenchmarkVerify verifies files of 8 KB.
func BenchmarkVerify(b *testing.B) {
	root := b.TempDir()
	content := strings.Repeat("exhumed\n", 1024)
	var list []schemas.Result
	for i := range 5000 {
		r := restoredAs(i, fmt.Sprintf("a/b/dir-%d/file-%d", i/100, i), content)
		path := filepath.Join(root, r.Output)
		must(b, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)))
		list = append(list, r)
	}
	b.SetBytes(int64(len(list) * len(content)))
	for b.Loop() {
		_, n, err := verified(Verify(b.Context(), &Config{}, root, sequence(list)))
		if must(b, err); n.Match != n.Checked {
			b.Fatalf("%+v", n)
		}
	}
	b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "items/s")
}
