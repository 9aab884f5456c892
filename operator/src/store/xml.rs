//! S3's answers, read by an XML parser. Namespaces do not matter: some stores leave S3's out.

use roxmltree::{Document, Node};

/// Reads an answer whose root has this name.
pub(super) fn read<T>(
    body: &[u8],
    root: &str,
    take: impl FnOnce(Node<'_, '_>) -> Result<T, String>,
) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let found = document.root_element();
    match found.tag_name().name() {
        name if name == root => take(found),
        name => Err(format!("{name:?} was answered instead of {root}")),
    }
}

/// The elements of one name right below a node.
pub(super) fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.tag_name().name() == name)
}

/// The text of an element right below a node, if it has any.
pub(super) fn text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    let found = children(node, name).next()?.text()?;
    (!found.is_empty()).then(|| found.to_owned())
}

/// The same of an element that must be there.
pub(super) fn required(node: Node<'_, '_>, name: &'static str) -> Result<String, String> {
    text(node, name).ok_or_else(|| format!("a {} without its {name}", node.tag_name().name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_do_not_matter_and_characters_are_what_they_stand_for() {
        for body in [
            "<Error><Code>A</Code><Message>a &#34;b&#34; &lt;c&gt;</Message></Error>",
            "<?xml version=\"1.0\"?>\n<Error xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Code>A</Code>\
                <Message><![CDATA[a \"b\" <c>]]></Message></Error>",
            "<s3:Error xmlns:s3=\"urn:x\"><s3:Code>A</s3:Code><s3:Message>a \"b\" &lt;c></s3:Message></s3:Error>",
        ] {
            let found =
                read(body.as_bytes(), "Error", |root| Ok((text(root, "Code"), text(root, "Message"))));
            assert_eq!(found, Ok((Some("A".into()), Some("a \"b\" <c>".into()))), "{body}");
        }
    }

    #[test]
    fn what_is_no_such_answer_is_an_error() {
        for body in
            ["", "<", "<a/>", "<Error>", "<html><br></html>", "<!DOCTYPE x [<!ENTITY a \"b\">]><Error/>"]
        {
            assert!(read(body.as_bytes(), "Error", |_| Ok(())).is_err(), "{body}");
        }
        assert!(read(b"<Error>\xff</Error>", "Error", |_| Ok(())).is_err());
    }
}
