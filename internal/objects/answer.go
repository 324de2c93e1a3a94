package objects

import (
	"errors"
	"io"
	"net/http"
)

// answerBytes bounds what a server may answer, apart from the content of an object.
// The longest of use is a listing of a thousand uploads.
const answerBytes = 16 << 20

// errAnswer says that an answer is longer than any server has reason for.
var errAnswer = errors.New("the answer is too long")

// brief bounds answers: whoever reads them keeps them in memory, and reads what is
// left of them before it uses the connection again.
type brief struct{ http.RoundTripper }

func (b brief) RoundTrip(q *http.Request) (*http.Response, error) {
	r, err := b.RoundTripper.RoundTrip(q)
	if err == nil && !isContent(q, r) {
		r.Body = &briefBody{r.Body, answerBytes}
	}
	return r, err
}

// isContent says whether an answer is the content of an object, which is read as a
// stream and by whoever knows how long it may be.
func isContent(q *http.Request, r *http.Response) bool {
	return q.Method == http.MethodGet && q.URL.RawQuery == "" && r.StatusCode >= 200 && r.StatusCode < 300
}

type briefBody struct {
	io.ReadCloser
	left int64
}

func (b *briefBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswer
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
