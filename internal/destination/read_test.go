package destination

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

func TestReadTree(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for name, content := range map[string]string{
		"same": "hello", "a/b/deep": "hello", "changed": "hellO", "short": "hell", "long": "hello!", "empty": "", "dir/file": "", "../outside/f": "hello",
	} {
		write(t, filepath.Join(root, name), content)
	}
	for name, to := range map[string]string{
		"link": "same", "out": "../outside/f", "inner": "a", "outer": "../outside", "loop": "loop",
	} {
		must(t, os.Symlink(to, filepath.Join(root, name)))
	}
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	v, err := ViewTree(root)
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	for _, tt := range []struct {
		output string
		want   Content
		code   schemas.Code // of the error
	}{
		{"same", Content{Size: 5, SHA256: sum([]byte("hello"))}, ""},
		{"a/b/deep", Content{Size: 5, SHA256: sum([]byte("hello"))}, ""},
		{"inner/b/deep", Content{Size: 5, SHA256: sum([]byte("hello"))}, ""},
		{"changed", Content{Size: 5, SHA256: sum([]byte("hellO"))}, ""},
		{"short", Content{Size: 4}, ""},
		{"long", Content{Size: 6}, ""},
		{"empty", Content{}, ""},
		{"link", Content{Kind: "a symlink", Size: 4}, ""},
		{"out", Content{Kind: "a symlink", Size: 12}, ""},
		{"fifo", Content{Kind: "a special file"}, ""},
		{"outer/f", Content{}, schemas.CodePathRefused},
		{"loop/f", Content{}, schemas.CodePathRefused},
		{"same/f", Content{}, schemas.CodePathRefused},
		{"../outside/f", Content{}, schemas.CodePathRefused},
		{strings.Repeat("x", 300), Content{}, schemas.CodePathRefused},
	} {
		got, err := v.Read(t.Context(), tt.output, 5)
		if diff := cmp.Diff(tt.want, got); diff != "" || codeOfError(err) != tt.code {
			t.Errorf("%s: %v (-want +got):\n%s", tt.output, err, diff)
		}
	}
	if got, err := v.Read(t.Context(), "dir", 5); err != nil || got.Kind != "a directory" {
		t.Errorf("dir: %+v, %v", got, err)
	}
	if got, err := v.Read(t.Context(), "empty", 0); err != nil || got.SHA256 != sum(nil) {
		t.Errorf("empty: %+v, %v", got, err)
	}
	for _, output := range []string{"none", "a/none", "none/none"} {
		if _, err := v.Read(t.Context(), output, 5); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", output, err)
		}
	}
}

// Reading the destination again believes nobody, not even what is kept beside an
// object.
func TestReadBucket(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	name := srv.Bucket(t)
	store := openStore(t, srv.Endpoint())
	put := func(key, content string) {
		t.Helper()
		must(t, store.Put(t.Context(), name, key, []byte(content), sum([]byte(content)), false))
	}
	put("pre/fix/same", "hello")
	put("pre/fix/short", "hell")
	put("pre/fix/empty", "")
	body := bytes.NewReader([]byte("hellO"))
	_, err := srv.Client().PutObject(t.Context(), name, "pre/fix/changed", body, body.Size(),
		minio.PutObjectOptions{UserMetadata: map[string]string{"sha256": sum([]byte("hello"))}})
	must(t, err)
	v, err := ViewBucket(store, name, "pre/fix")
	must(t, err)
	if same, err := v.Compare(t.Context(), "changed", 5, sum([]byte("hello"))); !same {
		t.Fatalf("the object lacks the metadata that lies: %v", err)
	}
	for output, want := range map[string]Content{
		"same":    {Size: 5, SHA256: sum([]byte("hello"))},
		"changed": {Size: 5, SHA256: sum([]byte("hellO"))},
		"short":   {Size: 4},
		"empty":   {},
	} {
		got, err := v.Read(t.Context(), output, 5)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", output, err, diff)
		}
	}
	if _, err := v.Read(t.Context(), "none", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := v.Read(t.Context(), "../x", 5); codeOfError(err) != schemas.CodePathRefused {
		t.Errorf("../x: %v", err)
	}

	stranger, err := objects.Open(objects.Config{Endpoint: srv.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: "wrong"})
	must(t, err)
	t.Cleanup(stranger.Close)
	v.bucket.store = stranger
	if _, err := v.Read(t.Context(), "same", 5); codeOfError(err) != schemas.CodeDestinationDenied {
		t.Errorf("without the rights: %v", err)
	}
}
