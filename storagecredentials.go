package keywright

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// StorageCredentials let ricloud write to a bucket. They are made by
// [GoogleCredentials], [AWSCredentials] or [ReadCredentialsFile].
type StorageCredentials interface {
	// storageCredentials returns them as sent, and the secrets among them.
	storageCredentials() (json.RawMessage, []Secret, error)
}

// googleFields are the members of an exported service-account key that must
// be there.
var googleFields = [...]string{"type", "project_id", "private_key_id", "private_key", "client_email", "client_id", "token_uri"}

// GoogleCredentials returns the credentials in a Google service-account key,
// as exported by the Google Cloud console. They are checked when they are used.
func GoogleCredentials(key []byte) StorageCredentials {
	return googleCredentials{NewSecret(string(key))}
}

type googleCredentials struct{ key Secret }

func (g googleCredentials) storageCredentials() (json.RawMessage, []Secret, error) {
	var members map[string]any
	if err := json.Unmarshal([]byte(g.key.Reveal()), &members); err != nil {
		return nil, nil, errors.New("not a JSON object")
	}
	for _, name := range googleFields {
		if s, ok := members[name].(string); !ok || s == "" {
			return nil, nil, errors.New(`field "` + name + `" is missing`)
		}
	}
	if members["type"] != "service_account" {
		return nil, nil, errors.New(`field "type" is not "service_account"`)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(g.key.Reveal())); err != nil {
		return nil, nil, errors.New("not a JSON object")
	}
	private, _ := members["private_key"].(string)
	id, _ := members["private_key_id"].(string)
	return compact.Bytes(), []Secret{NewSecret(private), NewSecret(id)}, nil
}

// AWSCredentials are an access key of an AWS IAM user.
type AWSCredentials struct {
	AccessKeyID     string // required, such as AKIA…
	SecretAccessKey Secret // required
	UserName        string // optional: the IAM user's name
}

func (a AWSCredentials) storageCredentials() (json.RawMessage, []Secret, error) {
	switch {
	case a.AccessKeyID == "":
		return nil, nil, errors.New(`field "access_key_id" is missing`)
	case a.SecretAccessKey.IsZero():
		return nil, nil, errors.New(`field "secret_access_key" is missing`)
	}
	raw, err := json.Marshal(struct {
		UserName        string `json:"user_name,omitempty"`
		AccessKeyID     string `json:"access_key_id"`
		SecretAccessKey string `json:"secret_access_key"`
	}{a.UserName, a.AccessKeyID, a.SecretAccessKey.Reveal()})
	return raw, []Secret{a.SecretAccessKey}, err
}

// ReadCredentialsFile reads storage credentials from a file: a Google
// service-account key as JSON, or the CSV that the AWS console gives for an
// IAM user, which is told by its .csv ending. A byte order mark, CRLF and the
// case of CSV headers do not matter. On Unix the file must not be readable by
// everybody and must belong to the user or to root.
//
// Errors are [*ConfigError]; they name what is missing and show no value.
func ReadCredentialsFile(path string) (StorageCredentials, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	if reason := privacyProblem(path, info); reason != "" {
		return nil, &ConfigError{Source: path, Reason: reason}
	}
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var c StorageCredentials
	if strings.EqualFold(filepath.Ext(path), ".csv") {
		c, err = parseAWS(b)
	} else {
		if end := truncatedAt(b); end >= 0 {
			return nil, &ConfigError{Source: path, Reason: "ends inside a value at byte " + strconv.Itoa(end)}
		}
		c = GoogleCredentials(b)
	}
	if err == nil {
		_, _, err = c.storageCredentials()
	}
	if err != nil {
		return nil, &ConfigError{Source: path, Reason: err.Error()}
	}
	return c, nil
}

// truncatedAt returns where a JSON text ends too early, -1 if it does not.
func truncatedAt(b []byte) int {
	dec := json.NewDecoder(bytes.NewReader(b))
	var v json.RawMessage
	if errors.Is(dec.Decode(&v), io.ErrUnexpectedEOF) {
		return len(b)
	}
	return -1
}

// parseAWS reads the CSV of the AWS console.
func parseAWS(b []byte) (StorageCredentials, error) {
	r := csv.NewReader(bytes.NewReader(b))
	r.TrimLeadingSpace = true
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, errors.New("is not CSV") // the error would show a line number at best
	}
	switch {
	case len(rows) == 0:
		return nil, errors.New("has no header")
	case len(rows) != 2:
		return nil, errors.New("has " + plural(len(rows)-1, "row") + "; want 1")
	}
	var c AWSCredentials
	for i, name := range rows[0] {
		if i >= len(rows[1]) {
			break
		}
		value := strings.TrimSpace(rows[1][i])
		switch strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), " ", "_") {
		case "user_name":
			c.UserName = value
		case "access_key_id":
			c.AccessKeyID = value
		case "secret_access_key":
			c.SecretAccessKey = NewSecret(value)
		}
	}
	return c, nil
}
