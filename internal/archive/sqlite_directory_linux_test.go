package archive

import (
	"database/sql"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// asNobody runs f without the right to write anywhere, even for root: the
// thread's file system identity is changed, and lives as long as f.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		f()
	}()
	<-done
}

// sealed makes a directory that nobody can write to, with an archive in it.
func sealed(t *testing.T, prepare func(path string)) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "sealed")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.db")
	prepare(path)
	for d := dir; len(d) >= len(filepath.Dir(root)); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	return path
}

func storeThree(t *testing.T, path string) (ids []string) {
	t.Helper()
	w, err := CreateWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range storeAll(t, w, newItems(3, func(i int) []byte { return []byte{byte(i)} })...) {
		ids = append(ids, s.Tombstone)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestReadOnlyDirectory(t *testing.T) {
	var ids []string
	path := sealed(t, func(path string) { ids = storeThree(t, path) })
	asNobody(t, func() {
		if f, err := os.Create(filepath.Join(filepath.Dir(path), "x")); err == nil {
			_ = f.Close()
			t.Error("the directory can be written to")
		}
		r, err := OpenReader(t.Context(), path)
		if err != nil {
			t.Error(err)
			return
		}
		found, err := r.Lookup(t.Context(), ids)
		if err != nil || len(found) != 3 {
			t.Errorf("%d items, %v", len(found), err)
		}
		for _, a := range found {
			checkStream(t, r, a)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_, err = OpenWriter(t.Context(), path)
		wantCode(t, err, schemas.CodeArchiveDown)
	})
	if diff := cmp.Diff([]string{"a.db"}, names(t, filepath.Dir(path))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// An archive whose log holds changes must not be read without them.
func TestReadOnlyDirectoryWithLog(t *testing.T) {
	path := sealed(t, func(path string) {
		live := path + ".live"
		storeThree(t, live)
		db, err := sql.Open("sqlite", live)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		if _, err := db.Exec(`DELETE FROM item`); err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{live: path, live + "-wal": path + "-wal"} {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	asNobody(t, func() {
		_, err := OpenReader(t.Context(), path)
		wantCode(t, err, schemas.CodeArchiveDown)
	})
}

func TestReaderWithoutPermission(t *testing.T) {
	path := sealed(t, func(path string) {
		storeThree(t, path)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
	})
	if os.Getuid() != 0 {
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	asNobody(t, func() {
		_, err := OpenReader(t.Context(), path)
		wantCode(t, err, schemas.CodeArchiveDown)
	})
}
