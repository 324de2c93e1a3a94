package broker

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/exhume/exhume/schemas"
)

// Whatever is sent to the control API is answered, once, with an answer or with
// an error of one line that has a code.
func FuzzQuestion(f *testing.F) {
	b := embed(f, f.TempDir())
	serve(f, b, mute{})
	subjects := []string{
		schemas.APIBatchOpen, schemas.APIBatchKept, schemas.APIBatchKeep, schemas.APIBatchSeal, schemas.APIBatchGet, schemas.APIBatchList, schemas.APIBatchResults, schemas.APIBatchWhy,
		schemas.APIBatchEvents, schemas.APIBatchChange, schemas.APIBatchTerms, schemas.APIBatchSkip, schemas.APIBatchCopy, schemas.APIBatchAudit,
		schemas.APILetters, schemas.APILetterGroups, schemas.APIFleetGet, schemas.APIFleetChange,
	}
	f.Fuzz(func(t *testing.T, call uint8, question []byte) {
		subject := subjects[int(call)%len(subjects)]
		m, err := b.nc.Request(subject, question, 10*time.Second)
		if err != nil {
			t.Fatalf("%s %q: %v", subject, question, err)
		}
		code := m.Header.Get(micro.ErrorCodeHeader)
		if code == "" {
			if !json.Valid(m.Data) {
				t.Errorf("%s %q: answer %q", subject, question, m.Data)
			}
			return
		}
		var e schemas.APIError
		if err := json.Unmarshal(m.Data, &e); err != nil || e.Code != schemas.CodeBadRequest || string(e.Code) != code || strings.ContainsAny(e.Detail, "\r\n") {
			t.Errorf("%s %q: error %s, %+v, %v", subject, question, code, e, err)
		}
	})
}

// What is kept of an item's failed attempts comes back as it was.
func FuzzRetry(f *testing.F) {
	b := embed(f, f.TempDir())
	f.Fuzz(func(t *testing.T, kept []byte) {
		var want schemas.Retry
		unreadable := json.Unmarshal(kept, &want) != nil
		kv, err := b.bucket(t.Context(), schemas.BucketRetries)
		must(t, err)
		_, err = kv.Put(t.Context(), retryKey("b", 7), kept)
		must(t, err)
		got, err := b.Retry(t.Context(), "b", 7)
		if (err != nil) != unreadable {
			t.Fatalf("%q: %+v, %v", kept, got, err)
		}
		if unreadable {
			return
		}
		must(t, b.SetRetry(t.Context(), "b", 7, got))
		again, err := b.Retry(t.Context(), "b", 7)
		must(t, err)
		if one, two := text(t, got), text(t, again); one != two || !reflect.DeepEqual(got.Causes, again.Causes) {
			t.Errorf("%q is %s, and that %s", kept, one, two)
		}
	})
}

// mute is a service that understands whatever it is asked, and has nothing to tell.
type mute struct{ Service }

func (mute) Open(context.Context, schemas.Batch) (s schemas.Summary, err error)               { return }
func (mute) Kept(context.Context, string) (to int64, err error)                               { return }
func (mute) Keep(context.Context, schemas.Kept) error                                         { return nil }
func (mute) Seal(context.Context, string, int64, string) (s schemas.Summary, err error)       { return }
func (mute) Get(context.Context, string) (r schemas.BatchReport, err error)                   { return }
func (mute) List(context.Context, schemas.BatchList) (l schemas.BatchListing, err error)      { return }
func (mute) Results(context.Context, schemas.ResultsQuery) (p schemas.ResultsPage, err error) { return }
func (mute) Why(context.Context, schemas.WhyQuery) (w schemas.Whereabouts, err error)         { return }
func (mute) Events(context.Context, string) (e schemas.BatchEvents, err error)                { return }
func (mute) Change(context.Context, schemas.BatchChange) (s schemas.Summary, err error)       { return }
func (mute) SetTerms(context.Context, schemas.BatchTerms) (s schemas.Summary, err error)      { return }
func (mute) Skip(context.Context, schemas.ItemSkip) (s schemas.Summary, err error)            { return }
func (mute) Copy(context.Context, schemas.BatchCopy) (c schemas.BatchCopied, err error)       { return }
func (mute) Audit(context.Context, string) (a schemas.Audit, err error)                       { return }
func (mute) Letters(context.Context, schemas.LettersQuery) (p schemas.LettersPage, err error) { return }
func (mute) LetterGroups(context.Context, schemas.LettersQuery) (g schemas.LetterGroups, err error) {
	return
}
func (mute) Fleet(context.Context) (f schemas.Fleet, err error)                               { return }
func (mute) ChangeFleet(context.Context, schemas.FleetChange) (s schemas.Steering, err error) { return }

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return string(data)
}
