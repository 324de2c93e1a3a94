package archive

import (
	"strings"
	"testing"
)

func TestScratch(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{postgresEngine, mariadbEngine} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			server := e.place(t)
			url, drop, err := Scratch(t.Context(), server, "scratch_"+e.name)
			if err != nil {
				t.Fatal(err)
			}
			w, err := CreateWriter(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenReader(t.Context(), server); err == nil {
				t.Error("the archive is in the server's own database")
			}
			if _, _, err := Scratch(t.Context(), server, "scratch_"+e.name); err == nil || !strings.Contains(err.Error(), "create a database") {
				t.Errorf("the same again: %v", err)
			}
			if err := drop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r, err := OpenReader(t.Context(), url); err == nil {
				_ = r.Close()
				t.Error("the database is still there")
			}
			if err := drop(t.Context()); err == nil || !strings.Contains(err.Error(), "remove it by hand") {
				t.Errorf("removed twice: %v", err)
			}
		})
	}
}

func TestScratchRefuses(t *testing.T) {
	t.Parallel()
	for url, name := range map[string]string{
		"sqlite:///./x.db":             "scratch",
		"postgresql://127.0.0.1:1/a":   "Scratch",
		"mariadb://me@127.0.0.1:1/a":   "scratch; DROP DATABASE a",
		"postgresql://127.0.0.1:1/abc": "scratch",
	} {
		if _, _, err := Scratch(t.Context(), url, name); err == nil {
			t.Errorf("%s %s: no error", url, name)
		}
	}
}
