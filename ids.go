package keywright

import (
	"strconv"
	"strings"
)

// Ids of ricloud that are whole numbers from 1. They decode from a number, a
// quoted number or the object that is referred to.
type (
	// KeyID names a ricloud key.
	KeyID int64
	// StorageConfigID names a ricloud storage config.
	StorageConfigID int64
	// WebhookConfigID names a ricloud webhook config.
	WebhookConfigID int64
	// OrganisationID names a ricloud organisation.
	OrganisationID int64
)

// Ids that are text. They decode from a string or a number.
type (
	// TaskID names a ricloud task.
	TaskID string
	// EventID names a ricloud event.
	EventID string
	// CredentialID names an Ace Data credential; it is a UUID.
	CredentialID string
	// ApplicationID names an Ace Data application; it is a UUID.
	ApplicationID string
	// PlatformTokenID names an Ace Data platform token; it is a UUID.
	PlatformTokenID string
)

type numberID interface {
	KeyID | StorageConfigID | WebhookConfigID | OrganisationID
}

// ParseID reads a number id from text, such as a command-line argument:
//
//	id, err := keywright.ParseID[keywright.KeyID]("42")
//
// The text must be plain digits without a leading zero. The error is a
// [*ParamError] that matches [ErrInvalidID] and does not repeat the text.
func ParseID[T numberID](s string) (T, error) {
	if reason := numberProblem(s); reason != "" {
		return 0, &ParamError{Op: "id", Field: "id", Reason: reason, Err: ErrInvalidID}
	}
	v, _ := strconv.ParseInt(s, 10, 64)
	return T(v), nil
}

// numberProblem names what keeps s from being a number id.
func numberProblem(s string) string {
	if reason := segmentProblem(s); reason != "" {
		return reason
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return "must be digits only"
		}
	}
	if s == "0" {
		return "must be 1 or greater"
	}
	if s[0] == '0' {
		return "must not start with 0"
	}
	if _, err := strconv.ParseInt(s, 10, 64); err != nil {
		return "is larger than 9223372036854775807"
	}
	return ""
}

// maxID bounds a text id, in bytes.
const maxID = 64

// segmentProblem names what keeps s from being one segment of a path. It
// never repeats more of s than one harmless character.
func segmentProblem(s string) string {
	switch {
	case s == "":
		return "must not be empty"
	case strings.TrimSpace(s) == "":
		return "must not be blank"
	case s == "." || s == "..":
		return strconv.Quote(s) + " is a path segment, not an id"
	case looksSecret(s):
		return "looks like a secret; pass the id (value not shown)"
	case len(s) > maxID:
		return "is " + itoa(len(s)) + " bytes long; the limit is " + itoa(maxID)
	}
	for i := range len(s) {
		at := " at byte " + itoa(i)
		switch c := s[i]; {
		case c == '%':
			return `contains "%"` + at + "; pass the raw id"
		case c == ' ':
			return "contains a space" + at
		case c < 0x20 || c == 0x7f:
			return "contains control byte 0x" + hexByte(c) + at
		case c > 0x7f:
			return "contains a non-ASCII byte" + at
		case !isUnreserved(c):
			return "contains " + strconv.Quote(string(rune(c))) + at
		}
	}
	return ""
}

// isUnreserved reports whether a path takes c as it is.
func isUnreserved(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return strings.IndexByte("-._~", c) >= 0
}

// looksSecret reports whether s has the shape of a provider's token.
func looksSecret(s string) bool {
	return strings.HasPrefix(s, "sk-") || strings.HasPrefix(s, "platform-") || strings.HasPrefix(s, "eyJ")
}

// uuidProblem names what keeps s from being a UUID.
func uuidProblem(s string) string {
	switch {
	case strings.HasPrefix(s, "urn:uuid:"):
		return `is not a UUID in plain form (remove "urn:uuid:")`
	case len(s) == 38 && s[0] == '{' && s[37] == '}':
		return "is not a UUID in plain form (remove the braces)"
	}
	if reason := segmentProblem(s); reason != "" {
		return reason
	}
	switch {
	case len(s) == 32 && isHex(s):
		return "is not a UUID in hyphenated form"
	case len(s) != 36:
		return "is not a UUID (" + itoa(len(s)) + " characters; want 36)"
	}
	zero := true
	for i := range len(s) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		if hyphen != (s[i] == '-') || !hyphen && !isHex(s[i:i+1]) {
			return "is not a UUID"
		}
		zero = zero && (hyphen || s[i] == '0')
	}
	if zero {
		return "must not be the nil UUID"
	}
	return ""
}

func isHex(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// numberPath is the path of a numbered resource of a collection, and of an
// action on it.
func numberPath[T numberID](op *operation, collection string, id T, action string) (string, error) {
	if id < 1 {
		return "", &ParamError{Op: op.name, Field: "id", Reason: "must be 1 or greater", Err: ErrInvalidID}
	}
	return collection + "/" + strconv.FormatInt(int64(id), 10) + action, nil
}

// textPath appends a text id to a collection's path. An id that passes needs
// no escaping.
func textPath[T ~string](op *operation, collection string, id T) (string, error) {
	if reason := segmentProblem(string(id)); reason != "" {
		return "", &ParamError{Op: op.name, Field: "id", Reason: reason, Err: ErrInvalidID}
	}
	return collection + "/" + string(id), nil
}

// uuidPath appends a UUID, in lower case, to a collection that ends in a slash.
func uuidPath[T ~string](op *operation, collection string, id T) (string, error) {
	if reason := uuidProblem(string(id)); reason != "" {
		return "", &ParamError{Op: op.name, Field: "id", Reason: reason, Err: ErrInvalidID}
	}
	return collection + strings.ToLower(string(id)), nil
}
