package main

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/exhume/exhume/internal/archive"
)

// placeholders are what a template of outputs can have of an item.
var placeholders = map[string]func(*archive.Item) string{
	"repo":      func(i *archive.Item) string { return below(i.Repo) },
	"path":      func(i *archive.Item) string { return below(i.Path) },
	"name":      func(i *archive.Item) string { return path.Base("/" + below(i.Path)) },
	"commit":    func(i *archive.Item) string { return below(i.Commit) },
	"tombstone": func(i *archive.Item) string { return below(i.Tombstone) },
	"sha256":    func(i *archive.Item) string { return below(i.SHA256) },
	"kind":      func(i *archive.Item) string { return below(i.Kind) },
	"reason":    func(i *archive.Item) string { return below(i.Reason) },
	"date": func(i *archive.Item) string {
		date, _, _ := strings.Cut(i.ArchivedAt, "T")
		return below(date)
	},
}

// below makes what the archive has a path that does not leave the directory it
// is put into.
func below(p string) string { return path.Clean("/" + p)[1:] }

// template makes outputs of items, piece by piece.
type template []func(*archive.Item) string

func parseTemplate(text string) (t template, err error) {
	if text == "" {
		return nil, errors.New("--output-template: it is empty")
	}
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "{")
		t = append(t, func(*archive.Item) string { return literal })
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		piece := placeholders[name]
		if piece == nil || !closed {
			return nil, fmt.Errorf("--output-template %q: {%s is none of {repo}, {path}, {name}, {commit}, {date}, {tombstone}, {sha256}, {kind}, {reason}",
				text, rest[len(literal)+1:])
		}
		t, rest = append(t, piece), after
	}
	return t, nil
}

func (t template) output(item *archive.Item) string {
	var b strings.Builder
	for _, piece := range t {
		b.WriteString(piece(item))
	}
	return b.String()
}
