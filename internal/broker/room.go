package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// reserve is the share of the queue that the requests of batches leave free: for
// requests that are tried again, and for those that are made one at a time.
const reserve = 16

// boundOf are the settings that bound streams.
var boundOf = map[string]string{
	schemas.StreamRestore:                   "EXHUME_QUEUE_BYTES",
	schemas.StreamResults:                   "EXHUME_RESULTS_BYTES",
	bucketStreamName(schemas.BucketRetries): "EXHUME_RETRIES_BYTES",
}

// Usage is how full a stream is.
type Usage struct {
	Stream string `json:"stream"`
	Bytes  int64  `json:"bytes"`
	// Bound is -1 when there is none. Setting is what sets it.
	Bound   int64  `json:"bound"`
	Setting string `json:"setting"`
}

// Usages tells how full the streams are that have a bound, as far as they are there.
func (b *Broker) Usages(ctx context.Context) (all []Usage, err error) {
	for _, s := range b.streams() {
		if boundOf[s.Name] == "" {
			continue
		}
		u, err := b.Usage(ctx, s.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// Usage tells how full a stream is: schemas.StreamRestore or StreamResults.
func (b *Broker) Usage(ctx context.Context, stream string) (Usage, error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return Usage{}, fmt.Errorf("stream %s: %w", stream, err)
	}
	return usage(s), nil
}

func usage(s jetstream.Stream) Usage {
	info := s.CachedInfo()
	return Usage{info.Config.Name, int64(info.State.Bytes), info.Config.MaxBytes, boundOf[info.Config.Name]}
}

// crowded says whether more than three quarters are full.
func (u Usage) crowded() bool { return u.Bound > 0 && u.Bytes > u.Bound/4*3 }

// room refuses requests of so many bytes that the queue has no room for. Where it
// cannot be asked, whoever publishes will hear why.
func (b *Broker) room(ctx context.Context, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, b.publishTimeout)
	defer cancel()
	u, err := b.Usage(ctx, schemas.StreamRestore)
	if err == nil && u.Bound > 0 && u.Bytes+bytes > u.Bound-u.Bound/reserve {
		return u.full()
	}
	return nil
}

// full is the error of a stream that takes no more.
func (u Usage) full() error {
	if u.Stream == schemas.StreamResults {
		return fault.New(schemas.CodeBrokerFull, "the stream of results is full (%s of %s, %s), and no collector has recorded them: is one running?",
			sizeText(u.Bytes), sizeText(u.Bound), u.Setting)
	}
	return fault.New(schemas.CodeBrokerFull, "the queue is full (%s of %s, %s)", sizeText(u.Bytes), sizeText(u.Bound), u.Setting)
}

// whyFull makes of the server's refusal for lack of room one that says so, with
// CodeBrokerFull. Other errors stay as they are.
func (b *Broker) whyFull(ctx context.Context, stream string, err error) error {
	var api *jetstream.APIError
	if !isFull(err) || !errors.As(err, &api) {
		return err
	}
	if api.ErrorCode == codeStoreFailed {
		if u, uerr := b.Usage(ctx, stream); uerr == nil {
			return u.full()
		}
	}
	return fault.New(schemas.CodeBrokerFull, "the broker's store is full (%s): raise the server's max_file_store or the account's limit, or remove what else is stored there",
		api.Description)
}

// isFull says whether the server refused for lack of room: of the stream, of its
// store or of the account.
func isFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case codeStoreFailed:
		return strings.Contains(api.Description, "maximum bytes exceeded")
	case codeAccountFull, codeNoResources, codeNoStorage:
		return true
	}
	return false
}

// Error codes of the server that the client library has no names for.
const (
	codeAccountFull jetstream.ErrorCode = 10002
	codeNoResources jetstream.ErrorCode = 10023
	codeNoStorage   jetstream.ErrorCode = 10047
	codeStoreFailed jetstream.ErrorCode = 10077
)

// sizeText is a size for people.
func sizeText(n int64) string {
	const units = "KMGTP"
	v, i := float64(n), -1
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + fmt.Sprintf(" %ciB", units[i])
}
