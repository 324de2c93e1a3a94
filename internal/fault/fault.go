// Package fault carries a stable code along with an error.
//
// Whoever knows a foreign system (SQL drivers, errno, S3) gives its errors a
// code here, once; everybody above decides by code and class alone.
package fault

import (
	"errors"
	"fmt"

	"github.com/exhume/exhume/schemas"
)

// Error is an error with a code. Its text is one line for people, without
// secrets, and does not repeat the code.
type Error struct {
	Code schemas.Code
	msg  string
	err  error
}

// New makes an error with a code; the arguments are those of fmt.Errorf, %w
// included.
func New(code schemas.Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, msg: err.Error(), err: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.msg }

// Unwrap gives the cause, if there is one.
func (e *Error) Unwrap() error { return e.err }

// CodeOf is the code that err carries, CodeInternal when it carries none.
func CodeOf(err error) schemas.Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return schemas.CodeInternal
}

// Is says whether err carries the code.
func Is(err error, code schemas.Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}
