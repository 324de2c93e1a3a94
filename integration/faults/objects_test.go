package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// Object storage that is read from, or written to, fails, lies or leads astray.
func TestObjects(t *testing.T) {
	strike(t, []fault{
		{"source", false, objectSource},
		{"destination", false, objectDestination},
		{"source-away", true, objectsAway(sourceTrial)},
		{"destination-away", true, objectsAway(destinationTrial)},
		{"source-overloaded", true, objectsOverloaded(sourceTrial)},
		{"destination-overloaded", true, objectsOverloaded(destinationTrial)},
	})
}

// objectAttempts is how often an item is tried whose objects fail.
const objectAttempts = 3

// objectSource has half of an archive's artifacts in object storage that answers
// wrongly for some of them: with what passes, which is to heal within an item's
// attempts, and with what stays, which is to fail the item with its code. It watches
// the classes of errors, the lengths and digests of what is read, the item timeout, and
// that nobody goes where a redirect leads: I1, I3, I5, I7.
func objectSource(t *testing.T, random *rand.Rand) {
	tr, s3 := sourceTrial(t, random)
	s3.plan(tr, http.MethodGet, []answers{
		{"denied", schemas.CodeArtifactDenied, always, status(http.StatusForbidden, "AccessDenied")},
		{"missing", schemas.CodeArtifactMissing, always, status(http.StatusNotFound, "NoSuchKey")},
		{"gone", schemas.CodeArtifactDenied, always, status(http.StatusGone, "")},
		{"moved", schemas.CodeArtifactDenied, always, redirect(http.StatusMovedPermanently)},
		{"found elsewhere", schemas.CodeArtifactDenied, always, redirect(http.StatusFound)},
		{"moved for a while", schemas.CodeArtifactDenied, always, redirect(http.StatusTemporaryRedirect)},
		{"endless noise", schemas.CodeDecodeFailed, always, endless(frameHead, []byte{0xff})},
		{"endless content", schemas.CodeIntegrityMismatch, always, endless(frameHead, block(nil, blockRLE, maxBlock, []byte{0}, false))},
		{"endless frames to skip", schemas.CodeItemTimeout, always, endless(nil, skippable(nil))},
		{"endless after its end", "", always, endlessAfter(skippable(make([]byte, 1000)))},
		{"slow down", "", several, status(http.StatusServiceUnavailable, "SlowDown")},
		{"too many", "", several, status(http.StatusTooManyRequests, "TooManyRequests")},
		{"broken", "", several, status(http.StatusInternalServerError, "InternalError")},
		{"bad gateway", "", several, status(http.StatusBadGateway, "")},
		{"cut off", "", several, cutOff},
		{"reset", "", several, resetting},
		{"silent", "", once, silent},
	})
	tr.submit(0)
	tr.finish()
	s3.nobodyWentAstray(t)
}

// objectDestination restores into a bucket that answers some of the writes wrongly, or
// loses them or the answers to them. It watches that what is written counts once it is
// known to stand there, that an answer that was lost is not taken for somebody else's
// object, and the rest of what objectSource watches: I1, I3, I5, I7.
func objectDestination(t *testing.T, random *rand.Rand) {
	tr, s3 := destinationTrial(t, random)
	s3.plan(tr, http.MethodPut, []answers{
		{"denied", schemas.CodeDestinationDenied, always, status(http.StatusForbidden, "AccessDenied")},
		{"without a bucket", schemas.CodeDestinationMissing, always, status(http.StatusNotFound, "NoSuchBucket")},
		{"moved", schemas.CodeDestinationDenied, always, redirect(http.StatusMovedPermanently)},
		{"moved for a while", schemas.CodeDestinationDenied, always, redirect(http.StatusTemporaryRedirect)},
		{"moved for good", schemas.CodeDestinationDenied, always, redirect(http.StatusPermanentRedirect)},
		{"slow down", "", several, status(http.StatusServiceUnavailable, "SlowDown")},
		{"too many", "", several, status(http.StatusTooManyRequests, "TooManyRequests")},
		{"broken", "", several, status(http.StatusInternalServerError, "InternalError")},
		{"conflict", "", few, status(http.StatusConflict, "ConditionalRequestConflict")},
		{"lost", "", several, resetting},
		{"answer lost", "", several, answerLost},
		{"answered with an error", "", several, answeredWithError},
		{"cut off on its way", "", several, cutOffOnItsWay},
		{"silent", "", once, silent},
	})
	tr.submit(0)
	tr.finish()
	s3.nobodyWentAstray(t)
}

// objectsAway takes object storage away for a while, twice, by resetting and refusing
// all its connections. It watches the breaker: an outage costs no attempt: I1, I5, I6.
func objectsAway(begin func(*testing.T, *rand.Rand) (*trial, *s3Faults)) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr, s3 := begin(t, random)
		tr.Attempts = 0
		tr.submit(150)
		for _, from := range []float64{0.1, 0.5} {
			tr.at(from, from+0.2)
			s3.all(resetting)
			tr.breakersOpen()
			s3.all(nil)
		}
		tr.finish()
	}
}

// objectsOverloaded has object storage answer everything with 503 until all workers
// have noticed. It watches that who is overloaded for everybody counts as away, so that
// no item fails for it, however long it lasts: I1, I5, I6.
func objectsOverloaded(begin func(*testing.T, *rand.Rand) (*trial, *s3Faults)) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr, s3 := begin(t, random)
		tr.submit(150)
		tr.at(0.1, 0.5)
		s3.all(status(http.StatusServiceUnavailable, "SlowDown"))
		tr.breakersOpen()
		s3.all(nil)
		tr.finish()
	}
}

// sourceTrial is a trial two artifacts of three of which lie in object storage.
func sourceTrial(t *testing.T, random *rand.Rand) (*trial, *s3Faults) {
	t.Helper()
	tr := newTrial(t, random, 400, "")
	server := s3test.StartServer(t)
	s3 := newS3Faults(t, random, server)
	bucket := server.Bucket(t)
	db := tr.OpenArchive(t)
	defer db.Close() //nolint:errcheck // all is committed
	rows, err := db.QueryContext(t.Context(), `SELECT i.path, a.id, a.blob_bytes FROM item i JOIN artifact a ON a.id = i.artifact_id ORDER BY i.path`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read to its end
	var ids []string
	for n := 0; rows.Next(); n++ {
		var output, id string
		var blob []byte
		if err := rows.Scan(&output, &id, &blob); err != nil {
			t.Fatal(err)
		}
		if n%3 == 0 {
			continue
		}
		put(t, server, bucket, "artifacts/"+id, blob)
		s3.keys[output] = "/" + bucket + "/artifacts/" + id
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		url := "s3://" + bucket + "/artifacts/" + id
		if _, err := db.ExecContext(t.Context(), `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = ? WHERE id = ?`, url, id); err != nil {
			t.Fatal(err)
		}
	}
	tr.startWith(s3, "EXHUME_S3_SOURCES=s3://"+bucket+"/artifacts")
	return tr, s3
}

// destinationTrial is a trial whose root is a bucket.
func destinationTrial(t *testing.T, random *rand.Rand) (*trial, *s3Faults) {
	t.Helper()
	tr := newTrial(t, random, 400, "")
	server := s3test.StartServer(t)
	s3 := newS3Faults(t, random, server)
	bucket := server.Bucket(t)
	for _, path := range harness.FilesBelow(t, tr.root) {
		rel, _ := filepath.Rel(tr.root, path)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		put(t, server, bucket, "restored/"+filepath.ToSlash(rel), content)
	}
	for output := range tr.truth {
		s3.keys[output] = "/" + bucket + "/restored/" + output
	}
	tr.to, tr.root = "s3://"+bucket+"/restored", filepath.Join(server.Dir(bucket), "restored")
	tr.startWith(s3)
	return tr, s3
}

// put stores an object behind everybody's back.
func put(t *testing.T, server *s3test.Server, bucket, key string, content []byte) {
	t.Helper()
	_, err := server.Client().PutObject(context.Background(), bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// startWith starts the fleet, whose object storage is this one.
func (tr *trial) startWith(s3 *s3Faults, env ...string) {
	tr.Helper()
	tr.Attempts = objectAttempts
	tr.start(2, append(env,
		"EXHUME_S3_ENDPOINT="+s3.url, "EXHUME_S3_ACCESS_KEY="+s3test.AccessKey, "EXHUME_S3_SECRET_KEY="+s3test.SecretKey,
		fmt.Sprintf("CODEX_ARCHIVE_RETRY_ATTEMPTS=%d", objectAttempts), "CODEX_ARCHIVE_RETRY_INITIAL=0.2", "EXHUME_ITEM_TIMEOUT=2s")...)
}

// plan has the object storage answer requests of a method for some of a trial's items
// in one of the ways each, and says in the truth what becomes of them.
func (s *s3Faults) plan(tr *trial, method string, ways []answers) {
	tr.Helper()
	n := 0
	for _, output := range tr.good() {
		key, ok := s.keys[output]
		if !ok || n == 4*len(ways) {
			continue
		}
		way := ways[n%len(ways)]
		n++
		s.faults[key] = &s3Fault{method: method, left: way.times(tr.random), how: way.how}
		is := tr.truth[output]
		if is.code = way.code; is.code != "" {
			is.sum = ""
		}
		tr.truth[output] = is
	}
	if n < 4*len(ways) {
		tr.Fatalf("only %d items have objects", n)
	}
}

// nobodyWentAstray checks that no redirect was followed, though there were some.
func (s *s3Faults) nobodyWentAstray(t *testing.T) {
	t.Helper()
	if n := s.astray.Load(); n > 0 {
		t.Errorf("I7: %d requests went where a redirect led", n)
	}
	if s.redirects.Load() == 0 {
		t.Error("nobody was redirected")
	}
}
