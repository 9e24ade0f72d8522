//! The banner flag of a user: raised at once, lowered when no connection of the user needs it.

use perene_policy::Connection;
use sqlx::{Sqlite, Transaction};

use super::commit::Known;
use super::shape::Shapes;
use super::sql::{Mapped, Statement, quoted, table};

/// Writes the user's row, if that changes it.
pub(super) async fn apply(
    transaction: &mut Transaction<'_, Sqlite>,
    mapped: &Mapped,
    shapes: &Shapes,
    connection: &Connection,
    flag: Option<bool>,
    known: &Known,
) -> Result<(), sqlx::Error> {
    let Some(is_raised) = flag else { return Ok(()) };
    let (Some((user, column)), Some(key)) = (mapped.flagged_users(), &shapes.user_key) else { return Ok(()) };
    let user_table = user.table.to_string();
    // Of a row that is gone only the memory still tells the user.
    let remembered = known.user.as_ref().filter(|(table, _)| *table == user_table).map(|(_, id)| id);
    let Some(user_id) = connection.user_id.as_ref().or(remembered) else { return Ok(()) };

    let (value, test) = if is_raised { ("1", "IS NOT TRUE") } else { ("0", "IS TRUE") };
    let mut statement = Statement::new(format!(
        "UPDATE {} AS u SET {column} = {value} WHERE u.{column} {test} AND {key} = ",
        table(&user.table),
        column = quoted(column),
    ));
    statement.push_bind(user_id.clone());
    if !is_raised {
        statement.push(" AND NOT EXISTS (SELECT 1 FROM perene_connection AS c WHERE c.flagged AND c.user_table = ");
        statement.push_bind(user_table).push(" AND c.user_id = ").push_bind(user_id.clone());
        statement.push(" AND (c.source, c.id) <> (").push_bind(mapped.name.clone());
        statement.push(", ").push_bind(connection.id.clone()).push("))");
    }
    statement.build().execute(&mut **transaction).await?;
    Ok(())
}
