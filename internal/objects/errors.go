package objects

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/minio/minio-go/v7"
)

// Kind is what an error of object storage means to whoever asked.
type Kind int

// The kinds.
const (
	// Failing: the server is overloaded or broken, or the connection was lost;
	// trying again may help.
	Failing Kind = iota
	// Away: nobody answers at the endpoint; where a connection was lost or has
	// stalled, not even another question.
	Away
	// Missing: there is no such object.
	Missing
	// NoBucket: there is no such bucket.
	NoBucket
	// Denied: the key is unknown or its rights do not suffice.
	Denied
	// Taken: the condition of a write or of a read does not hold.
	Taken
	// Gone: there is no such upload any more.
	Gone
	// Full: a quota or the storage is used up.
	Full
	// Unsupported: the server does not know what it is asked for.
	Unsupported
	// BadKey: the server cannot have an object under this key: it is too long, or
	// stands where the server has a directory or would need one.
	BadKey
	// Refused: the request cannot succeed for another reason.
	Refused
)

// Error is an error of object storage. Its text is one line that names the
// object, without secrets.
type Error struct {
	Kind Kind
	text string
	err  error
}

func (e *Error) Error() string { return e.text }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.err }

// Is says whether err is of the kind.
func Is(err error, k Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}

// fault says what an error about a bucket, or about an object in it, means.
// The error of a context that has ended comes back as it is, and nil stays nil.
func (s *Store) fault(ctx context.Context, bucket, key string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	e := &Error{Kind: kindOf(err), err: err}
	if e.Kind == Failing && !answered(err) && !s.answers(ctx) {
		e.Kind = Away
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
	}
	switch e.Kind {
	case NoBucket:
		e.text = fmt.Sprintf("bucket %q does not exist at %s; create it there, or correct the URL", bucket, s.name)
	case Away:
		e.text = fmt.Sprintf("object storage %s does not answer: %s", s.name, oneLine(err))
	case Denied:
		e.text = fmt.Sprintf("%s at %s: the rights of the access key do not suffice: %s", URL(bucket, key), s.name, oneLine(err))
	default:
		e.text = fmt.Sprintf("%s at %s: %s", URL(bucket, key), s.name, oneLine(err))
	}
	return e
}

func kindOf(err error) Kind {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		if k, ok := codes[e.Code]; ok {
			return k
		}
		return kindOfStatus(e.StatusCode)
	}
	if _, ok := errors.AsType[*addressError](err); ok {
		return Refused
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Refused
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.Temporary() {
		return Away
	}
	// Whoever did not get as far as a connection has seen no server.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return Away
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return Away
	}
	return Failing
}

// answered says whether err is what the server answered. Otherwise a connection
// was lost or stalled, which the transport has many words for.
func answered(err error) bool {
	_, ok := errors.AsType[minio.ErrorResponse](err)
	return ok
}

// codes are those whose HTTP status says too little.
var codes = map[string]Kind{
	minio.NoSuchKey:                  Missing,
	minio.NoSuchBucket:               NoBucket,
	minio.NoSuchUpload:               Gone,
	minio.PreconditionFailed:         Taken,
	minio.NotImplemented:             Unsupported,
	minio.InvalidAccessKeyID:         Denied,
	minio.SignatureDoesNotMatch:      Denied,
	minio.RequestTimeTooSkewed:       Denied,
	"ExpiredToken":                   Denied,
	"InvalidToken":                   Denied,
	"QuotaExceeded":                  Full,
	"XMinioAdminBucketQuotaExceeded": Full,
	"XMinioStorageFull":              Full,
	"KeyTooLongError":                BadKey,
	minio.XMinioInvalidObjectName:    BadKey,
	"XMinioParentIsObject":           BadKey,
	"XMinioObjectExistsAsDirectory":  BadKey,
	"ObjectParentIsFile":             BadKey,
	"ExistingObjectIsDirectory":      BadKey,
	// What was sent is not what arrived.
	minio.BadDigest:                 Failing,
	minio.XAmzContentSHA256Mismatch: Failing,
	minio.IncompleteBody:            Failing,
	"RequestTimeout":                Failing,
	"XAmzContentChecksumMismatch":   Failing,
	"SlowDown":                      Failing,
	"ConditionalRequestConflict":    Failing,
}

func kindOfStatus(status int) Kind {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Denied
	case status == http.StatusNotFound:
		return Missing
	case status == http.StatusPreconditionFailed:
		return Taken
	case status == http.StatusNotImplemented:
		return Unsupported
	case status == http.StatusInsufficientStorage:
		return Full
	case status < 300: // no error, and nothing that was asked for
		return Failing
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusTooManyRequests, status >= 500:
		return Failing
	}
	return Refused
}

// oneLine is the text of an error without what repeats the request.
func oneLine(err error) string {
	text := err.Error()
	if u, ok := errors.AsType[*url.Error](err); ok {
		text = u.Err.Error()
	}
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		text = e.Code + ": " + text
		if e.StatusCode >= 300 && e.StatusCode < 400 {
			text = fmt.Sprintf("HTTP %d: redirects are not followed; correct EXHUME_S3_ENDPOINT or EXHUME_S3_REGION", e.StatusCode)
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		text += " (EXHUME_S3_CA names authorities to trust)"
	}
	return strings.Join(strings.Fields(text), " ")
}
