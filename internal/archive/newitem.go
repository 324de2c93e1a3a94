package archive

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// NewItem is something to be stored.
type NewItem struct {
	// Repo, Path, Commit and By must not be empty. Commit is stored as it is.
	Repo, Path, Commit, By string
	// Kind is code, doc or asset; empty means code.
	Kind string
	// Reason is dead, pruned, legacy or replaced; empty means dead.
	Reason string
	// Language may be empty.
	Language string
	// MIME may be empty, which means application/octet-stream.
	MIME string
	// Tags are stored without duplicates.
	Tags []string
	// Metadata is kept with the item. legal_hold (1, true, yes, on; 0, false,
	// no, off) and delete_after go to columns of their own as well. The keys that
	// the archive fills itself are refused.
	Metadata map[string]string
	// Open gives the content. If it is nil, Content is the content.
	Open    func() (io.ReadCloser, error)
	Content []byte
}

// Stored is an item that was stored. Its JSON has the keys that scripts know
// from the archive's earlier command, and more.
type Stored struct {
	Tombstone string `json:"tombstone"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size_bytes"`
	// CompressedSize is the length of the bytes in the archive.
	CompressedSize int64  `json:"compressed_size"`
	Repo           string `json:"repo"`
	Path           string `json:"path"`
	Item           string `json:"item"`
	Reason         string `json:"reason"`
	By             string `json:"by"`
	Codec          string `json:"codec"`
	// Reused: the archive had this content already.
	Reused bool `json:"reused"`
	// Revived: the archive had a record of this content without its bytes.
	Revived bool `json:"revived,omitempty"`
}

// StoreOptions are the choices of Store.
type StoreOptions struct {
	// Revive allows storing content whose bytes were purged, which brings every
	// item back that shares it.
	Revive bool
}

var (
	kinds   = []string{"code", "doc", "asset"}
	reasons = []string{"dead", "pruned", "legacy", "replaced"}
	// ownKeys are the metadata that the archive fills itself.
	ownKeys = []string{"compressed_size", "compression", "language", "mime_type", "sha256", "size_bytes"}
	// holdWords are the spellings of a legal hold.
	holdWords = map[string]bool{
		"1": true, "true": true, "yes": true, "on": true,
		"0": false, "false": false, "no": false, "off": false, "": false,
	}
)

// checked is the item with its defaults, or an error that says what is wrong.
func (n NewItem) checked() (NewItem, error) {
	n.Kind, n.Reason, n.MIME = cmp.Or(n.Kind, "code"), cmp.Or(n.Reason, "dead"), cmp.Or(n.MIME, "application/octet-stream")
	for _, f := range []struct{ name, value string }{{"repo", n.Repo}, {"path", n.Path}, {"commit", n.Commit}, {"by", n.By}} {
		if f.value == "" {
			return n, fmt.Errorf("%s is missing", f.name)
		}
	}
	if !slices.Contains(kinds, n.Kind) {
		return n, fmt.Errorf("kind %q: want one of %s", n.Kind, strings.Join(kinds, ", "))
	}
	if !slices.Contains(reasons, n.Reason) {
		return n, fmt.Errorf("reason %q: want one of %s", n.Reason, strings.Join(reasons, ", "))
	}
	if slices.Contains(n.Tags, "") {
		return n, errors.New("a tag is empty")
	}
	for _, key := range slices.Sorted(maps.Keys(n.Metadata)) {
		if slices.Contains(ownKeys, key) {
			return n, fmt.Errorf("metadata %s: the archive fills this key itself; use another name", key)
		}
	}
	if word := n.Metadata["legal_hold"]; !isHoldWord(word) {
		return n, fmt.Errorf("metadata legal_hold=%q: want true or false (also 1, yes, on, 0, no, off)", word)
	}
	return n, nil
}

func isHoldWord(word string) bool {
	_, ok := holdWords[strings.ToLower(word)]
	return ok
}

// legalHold says whether the item is to be held; it must be checked.
func (n NewItem) legalHold() bool { return holdWords[strings.ToLower(n.Metadata["legal_hold"])] }

// metadata is the JSON that is stored with the item: compact, keys sorted.
func (n NewItem) metadata(s Stored) (string, error) {
	m := map[string]any{
		"compressed_size": s.CompressedSize,
		"compression":     s.Codec,
		"language":        nilIfEmpty(n.Language),
		"mime_type":       n.MIME,
		"sha256":          s.SHA256,
		"size_bytes":      s.Size,
	}
	for key, value := range n.Metadata {
		m[key] = value
	}
	delete(m, "legal_hold")
	if n.legalHold() {
		m["legal_hold"] = true
	}
	if n.Metadata["delete_after"] == "" {
		delete(m, "delete_after")
	}
	return compactJSON(m)
}

// nilIfEmpty is s, or nil (SQL NULL, JSON null) for an empty s.
func nilIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func compactJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// read gives the item's content, refusing more than limit bytes.
func (n NewItem) read(limit int64) ([]byte, error) {
	content := n.Content
	if n.Open != nil {
		in, err := n.Open()
		if err != nil {
			return nil, err
		}
		content, err = io.ReadAll(io.LimitReader(in, limit+1))
		if e := in.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, err
		}
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("larger than the %d bytes that an archive can hold in one item", limit)
	}
	return content, nil
}
